-- Leases credits of a token to a node: token limit and account budget in one step. Leases of the account that expired are
-- closed first, some at a call; that stays done whatever comes of the rest. Asked again with the id of an open lease it
-- leases nothing more, and writes the lease anew, so that a WAIT behind it waits for it.
--
-- KEYS  1 token's record · 2 account's record · 3 token's counter · 4 account's counter · 5 the lease
--       6 the account's open leases. Further names are made from the last (see leases.lua): one slot.
-- ARGV  1 the limit's field · 2 the budget's field · 3 what is drawn on (`ID/POOL`) · 4 the lease's id · 5 the node
--       6 want · 7 need · 8 life (µs) · 9 how long a stranded lease is kept (µs) · 10 time (µs), empty: the server's
-- Returns one of (all texts; times in seconds unless told; empty: none)
--   granted, granted, used, leased, limit, free, resets in, valid for (µs), time (µs)
--   credits_exhausted, resets in, recallable (`yes` or empty)
--   budget_exhausted, resets in, recallable
--   void
--   unreadable, key, why

local LARGEST_LEASE = 1000000
local SHARE = 4
local HOUR = 3600000000

local clock_now = clock(ARGV[10])
close_expired(KEYS[6], CLOSED_ON_THE_WAY, tonumber(ARGV[9]), clock_now)
local lease, bad_lease = read_lease(KEYS[5], clock_now)
if bad_lease then return unreadable(KEYS[5], 'it is not of its form') end
if lease and (lease.state ~= 'open' or lease.drawn_on ~= ARGV[3]) then return { 'void' } end

local function missing(key, field)
  return unreadable(key, redis.call('EXISTS', key) == 0 and 'there is none' or '`' .. field .. '` is missing')
end
local limit_text = redis.call('HGET', KEYS[1], ARGV[1])
if not limit_text then return missing(KEYS[1], ARGV[1]) end
local limit, bad_limit = parse_limit(limit_text)
if bad_limit then return unreadable(KEYS[1], '`' .. ARGV[1] .. '` is not a limit') end
local budget_text = redis.call('HGET', KEYS[2], ARGV[2])
if not budget_text then return missing(KEYS[2], ARGV[2]) end
local budget, bad_budget = parse_limit(budget_text)
if bad_budget then return unreadable(KEYS[2], '`' .. ARGV[2] .. '` is not a limit') end
local by_token = read_counter(KEYS[3])
if not by_token then return unreadable(KEYS[3], 'it is not a counter') end
local by_account = read_counter(KEYS[4])
if not by_account then return unreadable(KEYS[4], 'it is not a counter') end

-- Never before the hour that is being counted already: a clock that stepped back books no lease in a period that is over.
local now = math.max(clock_now, math.max(by_token.hour.start, by_account.hour.start) * 1000000)
local starts = period_starts(now)

local function reset(of)
  local seconds = of and resets_in(of.period, starts, now)
  return seconds and text(seconds) or ''
end
local function free_under(of, counter)
  if not of then return nil end
  local committed = used_in(counter, of.period, starts) + leased_in(counter, of.period, starts)
  return math.max(of.credits - committed, 0)
end
local function smaller(one, other)
  return one and other and math.min(one, other) or one or other
end

if not lease then
  local need = tonumber(ARGV[7])
  local by_limit, by_budget = free_under(limit, by_token), free_under(budget, by_account)
  -- A request that costs nothing passes limits that are used up.
  if need > 0 then
    local short_of_limit, short_of_budget = by_limit and by_limit < need, by_budget and by_budget < need
    local function recallable(of, counter)
      return of and math.max(of.credits - used_in(counter, of.period, starts), 0) >= need
    end
    if short_of_limit then
      local both = recallable(limit, by_token) and (not short_of_budget or recallable(budget, by_account))
      return { 'credits_exhausted', reset(limit), both and 'yes' or '' }
    end
    if short_of_budget then
      return { 'budget_exhausted', reset(budget), recallable(budget, by_account) and 'yes' or '' }
    end
  end
  local free = smaller(by_limit, by_budget)
  local share = free and math.ceil(free / SHARE) or LARGEST_LEASE
  local granted = math.max(math.min(tonumber(ARGV[6]), share, LARGEST_LEASE), need)
  lease_out(by_token, granted, starts)
  lease_out(by_account, granted, starts)
  write_counter(KEYS[3], by_token)
  write_counter(KEYS[4], by_account)
  lease = {
    drawn_on = ARGV[3],
    node = ARGV[5],
    granted = granted,
    taken_at = now,
    expires_at = now + tonumber(ARGV[8]),
    state = 'open',
    kept_until = 0,
  }
  redis.call('ZADD', KEYS[6], text(lease.expires_at), ARGV[4])
end
write_lease(KEYS[5], lease, clock_now)

local period = limit and limit.period or 'month'
local free = smaller(free_under(limit, by_token), free_under(budget, by_account))
local hour_ends = lease.taken_at - math.fmod(lease.taken_at, HOUR) + HOUR
return {
  'granted',
  text(lease.granted),
  text(used_in(by_token, period, starts)),
  text(leased_in(by_token, period, starts)),
  limit_text,
  free and text(free) or '',
  reset(limit),
  text(math.max(hour_ends - now, 0)),
  text(now),
}
