-- Closes leases of one account: what was spent is used for good, the rest is given back, and the usage it paid for is
-- counted. A stranded lease gets its true figure. Said again it changes nothing. A lease that is not known is kept as
-- closed, so that a reserve that is still under way grants nothing. What all of them count in, the account's counter and
-- the sums of a day, is read and written once. A lease that cannot be settled is left as it is; the others are settled.
--
-- KEYS  1 the account's open leases · 2 when tokens were last seen
--       for each day with usage: whose usage there is on that day · sums by hour · sums of the day ·
--       by token · by data set · by token of the month · by data set of the month
--       the leases
--       for each lease: token's counter · account's counter · for each of its days: the token's cells
-- ARGV  1 how long a closed lease is kept (µs) · 2 how long an unknown one (µs) · 3 how long usage is kept (µs)
--       4 time (µs), empty: the server's · 5 how many days, for each: its end (s) · its month's end (s)
--       how many leases, for each: what is drawn on (`ID/POOL`) · its id · the token's id · what was spent ·
--       the last second of the last hour with usage, empty: there is none · how many days, for each: which of those above ·
--       how many cells, for each: HH · pool · operation · data set · requests · credits · bytes
-- Returns for each lease a list: settled, unknown (nothing was counted), or unreadable, key, why

local DAY_KEYS = 7
local AT_ONCE = 1000

local now = clock(ARGV[4])
local key_at, arg_at = 2, 5

local days = {}
for at = 1, tonumber(ARGV[5]) do
  local day = { keys = {}, tokens = {}, cells = {}, ends = whole(ARGV[arg_at + 1]), month_ends = whole(ARGV[arg_at + 2]) }
  arg_at = arg_at + 2
  for of_day = 1, DAY_KEYS do
    day.keys[of_day] = KEYS[key_at + of_day]
  end
  key_at = key_at + DAY_KEYS
  days[at] = day
end

-- What cells and sums hold: every field of every key is a place, and this is what stands there. All is read before anything is
-- written. `false`: it is no usage.
local keys, fields_of, places_of, key_of = {}, {}, {}, {}
local requests, credits, bytes, counted = {}, {}, {}, {}
local function place(key, field)
  local places = places_of[key]
  if not places then
    places = {}
    places_of[key], fields_of[key], keys[#keys + 1] = places, {}, key
  end
  local at = places[field]
  if not at then
    at = #key_of + 1
    local fields = fields_of[key]
    fields[#fields + 1], places[field], key_of[at] = field, at, key
  end
  return at
end

local counters, counter_keys = {}, {}
local function has_counter(key)
  if counters[key] == nil then
    counters[key] = read_counter(key) or false
    counter_keys[#counter_keys + 1] = key
  end
  return counters[key]
end

-- Whether a lease can be closed: nothing, if so; else what is answered.
local taken = {}
local function hindrance(closing, written)
  local key = closing.key
  local lease, bad_lease = parse_lease(written, now)
  if bad_lease then return unreadable(key, 'it is not of its form') end
  if not lease then
    write_lease(key, { state = 'closed', kept_until = now + tonumber(ARGV[2]) }, now)
    return { 'unknown' }
  end
  if lease.state == 'closed' or lease.drawn_on ~= closing.drawn_on or taken[key] then return { 'unknown' } end
  if not has_counter(closing.by_token) then return unreadable(closing.by_token, 'it is not a counter') end
  if not has_counter(closing.by_account) then return unreadable(closing.by_account, 'it is not a counter') end
  taken[key], closing.lease = true, lease
  return nil
end

-- What cells of one hour, pool, operation and data set have in common: their field, and the places of their sums.
local commons = {}
local function common(day, arg)
  local hour, pool, operation, dataset = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4]
  local field = hour .. '|' .. pool .. '|' .. operation .. '|' .. dataset
  local of_day = commons[day]
  if not of_day then
    of_day = {}
    commons[day] = of_day
  end
  local found = of_day[field]
  if not found then
    local of_keys, of_dataset = day.keys, pool .. '|' .. dataset
    found = {
      field = field,
      place(of_keys[2], field), place(of_keys[3], pool .. '|' .. operation),
      place(of_keys[5], of_dataset), place(of_keys[7], of_dataset),
    }
    of_day[field] = found
  end
  return found
end

local all = {}
local leases = tonumber(ARGV[arg_at + 1])
local first_lease = key_at
local written_leases = read_texts({ unpack(KEYS, first_lease + 1, first_lease + leases) })
key_at, arg_at = key_at + leases, arg_at + 1
for at = 1, leases do
  local closing = {
    drawn_on = ARGV[arg_at + 1], id = ARGV[arg_at + 2], token = ARGV[arg_at + 3], spent = whole(ARGV[arg_at + 4]),
    last_second = ARGV[arg_at + 5], key = KEYS[first_lease + at], by_token = KEYS[key_at + 1], by_account = KEYS[key_at + 2],
  }
  local answer = hindrance(closing, written_leases[at])
  -- Places, each with where its figures stand in ARGV; days, each with the key of its cells.
  local counts, of_days, count = {}, {}, 0
  local days_of = tonumber(ARGV[arg_at + 6])
  key_at, arg_at = key_at + 2, arg_at + 6
  for of = 1, days_of do
    local day, cells, cells_key = days[tonumber(ARGV[arg_at + 1])], tonumber(ARGV[arg_at + 2]), KEYS[key_at + 1]
    key_at, arg_at = key_at + 1, arg_at + 2
    of_days[of * 2 - 1], of_days[of * 2] = day, cells_key
    for _ = 1, cells do
      if not answer then
        local shared, by_token, figures = common(day, arg_at), ARGV[arg_at + 2] .. '|' .. closing.token, arg_at + 5
        for sum = 1, 4 do
          counts[count + 1], counts[count + 2] = shared[sum], figures
          count = count + 2
        end
        counts[count + 1], counts[count + 2] = place(cells_key, shared.field), figures
        counts[count + 3], counts[count + 4] = place(day.keys[4], by_token), figures
        counts[count + 5], counts[count + 6] = place(day.keys[6], by_token), figures
        count = count + 6
      end
      arg_at = arg_at + 7
    end
  end
  closing.answer, closing.counts, closing.days = answer, counts, of_days
  all[at] = closing
end

-- Reads many fields of a hash.
local function read_fields(key, fields)
  if #fields <= AT_ONCE then return call('HMGET', key, unpack(fields)) end
  local values = {}
  for from = 1, #fields, AT_ONCE do
    local part = call('HMGET', key, unpack(fields, from, min(from + AT_ONCE - 1, #fields)))
    for at, value in ipairs(part) do
      values[from + at - 1] = value
    end
  end
  return values
end

-- Keys of which nothing was there that is read: they may not be there at all. All others were given their time to live when
-- that was written.
local is_new = {}
for _, key in ipairs(keys) do
  local fields, places = fields_of[key], places_of[key]
  is_new[key] = true
  for at, written in ipairs(read_fields(key, fields)) do
    local here = places[fields[at]]
    if written then
      local of_requests, of_credits, of_bytes = match(written, '^(%d+) (%d+) (%d+)$')
      requests[here] = of_requests and whole(of_requests) or false
      credits[here], bytes[here] = of_requests and whole(of_credits), of_requests and whole(of_bytes)
      is_new[key] = false
    else
      requests[here], credits[here], bytes[here] = 0, 0, 0
    end
  end
end

local settled = {}
for _, closing in ipairs(all) do
  if not closing.answer then
    local counts = closing.counts
    for at = 1, #counts, 2 do
      if not requests[counts[at]] then
        closing.answer = unreadable(key_of[counts[at]], 'it holds what is no usage')
      end
    end
  end
  if not closing.answer then
    closing.answer = { 'settled' }
    settled[#settled + 1] = closing
  end
end

local closed_ids, seen_tokens, last_seconds, touched = {}, {}, {}, {}
local function close_under(key, lease, spent, starts)
  local counter = counters[key]
  if lease.state == 'open' then
    unlease(counter, lease.granted, spent, starts)
  else
    correct(counter, lease.granted, spent, starts)
    counter[STRANDED] = max(counter[STRANDED] - lease.granted, 0)
  end
  touched[key] = true
end
for at, closing in ipairs(settled) do
  local lease, counts, of_days, token = closing.lease, closing.counts, closing.days, closing.token
  local starts = period_starts(lease.taken_at)
  close_under(closing.by_token, lease, closing.spent, starts)
  close_under(closing.by_account, lease, closing.spent, starts)
  for count = 1, #counts, 2 do
    local here, figures = counts[count], counts[count + 1]
    requests[here] = min(requests[here] + whole(ARGV[figures]), MAX_CREDITS)
    credits[here] = min(credits[here] + whole(ARGV[figures + 1]), MAX_CREDITS)
    bytes[here] = min(bytes[here] + whole(ARGV[figures + 2]), MAX_CREDITS)
    counted[here] = true
  end
  for of = 1, #of_days, 2 do
    local day = of_days[of]
    day.tokens[#day.tokens + 1] = token
    day.cells[of_days[of + 1]] = true
  end
  closed_ids[at] = closing.id
  if closing.last_second ~= '' then
    local last = whole(closing.last_second)
    if not last_seconds[token] then seen_tokens[#seen_tokens + 1] = token end
    last_seconds[token] = max(last_seconds[token] or 0, last)
  end
end

for _, key in ipairs(counter_keys) do
  if touched[key] then write_counter(key, counters[key]) end
end
if #closed_ids > 0 then call('ZREM', KEYS[1], unpack(closed_ids)) end
local closed = { state = 'closed', kept_until = now + tonumber(ARGV[1]) }
for _, closing in ipairs(settled) do
  write_lease(closing.key, closed, now)
end
for _, day in ipairs(days) do
  if #day.tokens > 0 then
    if is_new[day.keys[3]] or is_new[day.keys[6]] or is_new[day.keys[7]] then
      begin_sums(day.keys[1], day.keys[3], day.keys[6], day.keys[7])
    end
    call('SADD', day.keys[1], unpack(day.tokens))
  end
end

-- Writes many fields of a hash.
local function write_fields(key, pairs_of)
  for from = 1, #pairs_of, AT_ONCE do
    call('HSET', key, unpack(pairs_of, from, min(from + AT_ONCE - 1, #pairs_of)))
  end
end

for _, key in ipairs(keys) do
  local places, written, count = places_of[key], {}, 0
  for _, field in ipairs(fields_of[key]) do
    local here = places[field]
    if counted[here] then
      written[count + 1], written[count + 2] = field, format('%d %d %d', requests[here], credits[here], bytes[here])
      count = count + 2
    end
  end
  write_fields(key, written)
end
for _, day in ipairs(days) do
  if #day.tokens > 0 then
    local left = text(usage_left(day.ends, tonumber(ARGV[3]), now))
    local month_left = text(usage_left(day.month_ends, tonumber(ARGV[3]), now))
    is_new[day.keys[1]] = is_new[day.keys[3]]
    for cells in pairs(day.cells) do
      if is_new[cells] then call('PEXPIRE', cells, left) end
    end
    for at, key in ipairs(day.keys) do
      if is_new[key] then call('PEXPIRE', key, at < 6 and left or month_left) end
    end
  end
end

-- When tokens were last seen: now, or in their last hour, where that is over.
if #seen_tokens > 0 then
  local seen = {}
  for at, before in ipairs(read_fields(KEYS[2], seen_tokens)) do
    local last = min(floor(now / 1000000), last_seconds[seen_tokens[at]])
    if last > (tonumber(before or '0') or 0) then seen[#seen + 1], seen[#seen + 2] = seen_tokens[at], text(last) end
  end
  write_fields(KEYS[2], seen)
end

local answers = {}
for at, closing in ipairs(all) do
  answers[at] = closing.answer
end
return answers
