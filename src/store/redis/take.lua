-- Takes what tokens of one account need to go on: passes of throttles, as src/ledger/pace.rs does, and leases of credits, token
-- limit and account budget in one step. Each ask is answered as if it had come alone, in their order; what several go
-- by is read and written once. All is read before anything is written: where a key holds something of another type, the
-- whole call fails and nothing was taken.
--
-- Leases of the account that expired are closed first, some at a call; that stays done whatever comes of the rest. Asked
-- again with the id of an open lease it leases nothing more, and writes the lease anew, so that a WAIT behind it waits for it.
--
-- KEYS  1 account's record · 2 account's open leases. Further names are made from it (see leases.lua): one slot.
--       for a pass: token's record · token's throttle
--       for a lease: token's record · token's counter · account's counter · the lease
-- ARGV  1 how long a stranded lease is kept (µs) · 2 time (µs), empty: the server's · 3 how many leases are asked for
--       for a pass: `pass` · how many are wanted
--       for a lease: `lease` · the limit's field · the budget's field · what is drawn on (`ID/POOL`) · its id · the node
--       · want · need · life (µs)
-- Returns for each ask a list of texts (times in seconds unless told; empty: none)
--   unlimited
--   passes, how many, for how long those after the first may be held (µs), how many more could be had at once
--   wait, for how long (µs)
--   granted, granted, used, leased, limit, free, resets in, valid for (µs), time (µs)
--   credits_exhausted, resets in, recallable (`yes` or empty)
--   budget_exhausted, resets in, recallable
--   void
--   unreadable, key, why

local LARGEST_LEASE = 1000000
local SHARE = 4
local HOUR = 3600000000
-- How long a throttle is kept after it says nothing any more (ms): that is cheap, and a clock may step back.
local THROTTLE_KEPT = 3600000

local clock_now = clock(ARGV[2])
if ARGV[3] ~= '0' then close_expired(KEYS[2], CLOSED_ON_THE_WAY, tonumber(ARGV[1]), clock_now) end

-- Records by their key: the fields that are needed, in some order, and what they hold.
local records, record_keys = {}, {}
local function need(key, field)
  local record = records[key]
  if not record then
    record = {}
    records[key], record_keys[#record_keys + 1] = record, key
  end
  if record[field] == nil then record[#record + 1], record[field] = field, false end
end

local asks, asked = {}, 0
do
  local key, arg, last = 2, 3, #ARGV
  while arg < last do
    local ask
    if ARGV[arg + 1] == 'pass' then
      ask = { want = whole(ARGV[arg + 2]), record = KEYS[key + 1], cell = KEYS[key + 2] }
      need(ask.record, 'rate')
      need(ask.record, 'burst')
      key, arg = key + 2, arg + 2
    else
      ask = {
        limit = ARGV[arg + 2], budget = ARGV[arg + 3], drawn_on = ARGV[arg + 4], id = ARGV[arg + 5], node = ARGV[arg + 6],
        want = whole(ARGV[arg + 7]), need = whole(ARGV[arg + 8]), life = whole(ARGV[arg + 9]),
        record = KEYS[key + 1], by_token = KEYS[key + 2], by_account = KEYS[key + 3], lease = KEYS[key + 4],
      }
      need(ask.record, ask.limit)
      need(KEYS[1], ask.budget)
      key, arg = key + 4, arg + 9
    end
    asked = asked + 1
    asks[asked] = ask
  end
end

for at = 1, #record_keys do
  local key = record_keys[at]
  local record, any = records[key], false
  for field, value in ipairs(call('HMGET', key, unpack(record))) do
    record[record[field]] = value
    any = any or value
  end
  record.missing = not any and call('EXISTS', key) == 0
end

-- The throttles, counters and leases, as they stand; false: they cannot be read, or there is no such lease.
local cells, counters, leases, bad_leases = {}, {}, {}, {}
local texts_read = {}
for at = 1, asked do
  texts_read[at] = asks[at].cell or asks[at].lease
end
texts_read = read_texts(texts_read)
for at = 1, asked do
  local ask, written = asks[at], texts_read[at]
  if ask.cell then
    cells[ask.cell] = whole(written or '0') or false
  else
    local lease, bad = parse_lease(written, clock_now)
    leases[ask.lease], bad_leases[ask.lease] = lease or false, bad
    if counters[ask.by_token] == nil then counters[ask.by_token] = read_counter(ask.by_token) or false end
    if counters[ask.by_account] == nil then counters[ask.by_account] = read_counter(ask.by_account) or false end
  end
end

-- What is answered where a field of a record is not there.
local function missing(key, field)
  return unreadable(key, records[key].missing and 'there is none' or '`' .. field .. '` is missing')
end

local new_cells, new_leases, new_counters = {}, {}, {}

local function pass(ask)
  local record = records[ask.record]
  if not record.rate then return missing(ask.record, 'rate') end
  if not record.burst then return missing(ask.record, 'burst') end
  local rate, bad_rate = parse_rate(record.rate, record.burst)
  if bad_rate then return unreadable(ask.record, '`rate` and `burst` are not a rate') end
  if not rate then return { 'unlimited' } end
  local now, arrival = clock_now, cells[ask.cell]
  if not arrival then return unreadable(ask.cell, 'it is not a time') end

  local full = rate.spacing * rate.burst
  local first = min(max(arrival, now), now + full) + rate.spacing
  if first - now > full then
    -- Further ahead than a burst: from a larger limit, or a clock that stepped back. The wait must come to its end.
    if arrival > now + full then cells[ask.cell], new_cells[ask.cell] = now + full, true end
    return { 'wait', text(first - now - full) }
  end
  -- Those after the first may be used until the hold is over, and count as if each came then.
  local hold = min(max(floor(rate.burst * 200000 / rate.per_second), 100000), 200000)
  local most = max(min(ask.want, floor(rate.per_second / 10)), 1)
  local held_from = max(first, now + hold)
  local more = floor((now + full - held_from) / rate.spacing)
  more = min(max(more, 0), most - 1)
  local next_arrival = more > 0 and held_from + more * rate.spacing or first
  cells[ask.cell], new_cells[ask.cell] = next_arrival, true
  local remaining = floor((full - max(next_arrival - now, 0)) / rate.spacing)
  return { 'passes', text(1 + more), text(hold), text(max(remaining, 0)) }
end

local function free_under(limit, counter, starts)
  local committed = used_in(counter, limit.period, starts) + leased_in(counter, limit.period, starts)
  return max(limit.credits - committed, 0)
end

-- Whether there would be so much if all that is leased came back.
local function recallable(limit, counter, starts, need)
  return max(limit.credits - used_in(counter, limit.period, starts), 0) >= need
end

local function reset_text(limit, starts, now)
  local seconds = limit and resets_in(limit.period, starts, now)
  return seconds and text(seconds) or ''
end

local function smaller(one, other)
  return one and other and min(one, other) or one or other
end

local function reserve(ask)
  if bad_leases[ask.lease] then return unreadable(ask.lease, 'it is not of its form') end
  local lease = leases[ask.lease]
  if lease and (lease.state ~= 'open' or lease.drawn_on ~= ask.drawn_on) then return { 'void' } end
  local limit_text, budget_text = records[ask.record][ask.limit], records[KEYS[1]][ask.budget]
  if not limit_text then return missing(ask.record, ask.limit) end
  local limit, bad_limit = parse_limit(limit_text)
  if bad_limit then return unreadable(ask.record, '`' .. ask.limit .. '` is not a limit') end
  if not budget_text then return missing(KEYS[1], ask.budget) end
  local budget, bad_budget = parse_limit(budget_text)
  if bad_budget then return unreadable(KEYS[1], '`' .. ask.budget .. '` is not a limit') end
  local by_token, by_account = counters[ask.by_token], counters[ask.by_account]
  if not by_token then return unreadable(ask.by_token, 'it is not a counter') end
  if not by_account then return unreadable(ask.by_account, 'it is not a counter') end

  -- Never before the hour that is being counted already: a clock that stepped back books no lease in a period that is over.
  local now = max(clock_now, max(by_token[AT.hour], by_account[AT.hour]) * 1000000)
  local starts = period_starts(now)
  local by_limit = limit and free_under(limit, by_token, starts)
  local by_budget = budget and free_under(budget, by_account, starts)

  if not lease then
    local need = ask.need
    -- A request that costs nothing passes limits that are used up.
    if need > 0 then
      local short_of_budget = by_budget and by_budget < need
      if by_limit and by_limit < need then
        local both = recallable(limit, by_token, starts, need)
          and (not short_of_budget or recallable(budget, by_account, starts, need))
        return { 'credits_exhausted', reset_text(limit, starts, now), both and 'yes' or '' }
      end
      if short_of_budget then
        local back = recallable(budget, by_account, starts, need)
        return { 'budget_exhausted', reset_text(budget, starts, now), back and 'yes' or '' }
      end
    end
    local free = smaller(by_limit, by_budget)
    local share = free and ceil(free / SHARE) or LARGEST_LEASE
    local granted = max(min(ask.want, share, LARGEST_LEASE), need)
    lease_out(by_token, granted, starts)
    lease_out(by_account, granted, starts)
    new_counters[ask.by_token], new_counters[ask.by_account] = true, true
    lease = {
      drawn_on = ask.drawn_on,
      node = ask.node,
      granted = granted,
      taken_at = now,
      expires_at = now + ask.life,
      state = 'open',
      kept_until = 0,
      -- Only of one that is new.
      id = ask.id,
    }
    leases[ask.lease] = lease
    by_limit, by_budget = limit and free_under(limit, by_token, starts), budget and free_under(budget, by_account, starts)
  end
  new_leases[ask.lease] = true

  local period, free = limit and limit.period or 'month', smaller(by_limit, by_budget)
  local hour_ends = lease.taken_at - fmod(lease.taken_at, HOUR) + HOUR
  return {
    'granted',
    text(lease.granted),
    text(used_in(by_token, period, starts)),
    text(leased_in(by_token, period, starts)),
    limit_text,
    free and text(free) or '',
    reset_text(limit, starts, now),
    text(max(hour_ends - now, 0)),
    text(now),
  }
end

local answers = {}
for at = 1, asked do
  local ask = asks[at]
  answers[at] = ask.cell and pass(ask) or reserve(ask)
end

for key in pairs(new_counters) do
  write_counter(key, counters[key])
end
local opened, written = {}, {}
for key in pairs(new_leases) do
  local lease = leases[key]
  if lease.id then opened[#opened + 1], opened[#opened + 2] = text(lease.expires_at), lease.id end
  written[#written + 1], written[#written + 2] = key, lease_text(lease)
end
if #opened > 0 then call('ZADD', KEYS[2], unpack(opened)) end
if #written > 0 then call('MSET', unpack(written)) end
for key in pairs(new_cells) do
  local cell = cells[key]
  call('SET', key, text(cell), 'PX', text(ceil((cell - clock_now) / 1000) + THROTTLE_KEPT))
end
return answers
