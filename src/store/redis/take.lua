-- Takes the credits of one request: throttle, then token limit and account budget together, all or nothing. Asked
-- again with the same lease it takes nothing more, and answers what it answered.
--
-- KEYS  1 token's record · 2 account's record · 3 token's counter · 4 account's counter · 5 token's throttle
--       6 the lease
-- ARGV  1 the limit's field · 2 the budget's field · 3 cost · 4 what is drawn on (`ID/POOL`), kept in the lease
--       5 life of the lease (ms) · 6 time (µs), empty: the server's
-- Returns one of (all texts; times in seconds unless told; empty: none)
--   granted, used, limit, remaining, resets in, burst left, time (µs)
--   rate_limited, wait (µs)
--   credits_exhausted, resets in
--   budget_exhausted, resets in
--   unreadable, key, why

local now = clock(ARGV[6])
local cost = tonumber(ARGV[3])

local lease = redis.call('GET', KEYS[6])
if lease then
  local drawn_on, _, taken_at, answer = parse_lease(lease)
  if not drawn_on then return unreadable(KEYS[6], 'it is not of its form') end
  if drawn_on == ARGV[4] and now - taken_at < tonumber(ARGV[5]) * 1000 then
    local again = { 'granted' }
    for part in string.gmatch(answer .. '|', '([^|]*)|') do table.insert(again, part) end
    return again
  end
end

local token = redis.call('HMGET', KEYS[1], ARGV[1], 'rate', 'burst')
local account = redis.call('HMGET', KEYS[2], ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return unreadable(KEYS[1], 'there is none') end
if not token[1] then return unreadable(KEYS[1], '`' .. ARGV[1] .. '` is missing') end
if not token[2] then return unreadable(KEYS[1], '`rate` is missing') end
if not token[3] then return unreadable(KEYS[1], '`burst` is missing') end
if redis.call('EXISTS', KEYS[2]) == 0 then return unreadable(KEYS[2], 'there is none') end
if not account[1] then return unreadable(KEYS[2], '`' .. ARGV[2] .. '` is missing') end
local limit, bad_limit = parse_limit(token[1])
if bad_limit then return unreadable(KEYS[1], '`' .. ARGV[1] .. '` is not a limit') end
local rate, bad_rate = parse_rate(token[2], token[3])
if bad_rate then return unreadable(KEYS[1], '`rate` and `burst` are not a rate') end
local budget, bad_budget = parse_limit(account[1])
if bad_budget then return unreadable(KEYS[2], '`' .. ARGV[2] .. '` is not a limit') end
local by_token = read_counter(KEYS[3])
if not by_token then return unreadable(KEYS[3], 'it is not a counter') end
local by_account = read_counter(KEYS[4])
if not by_account then return unreadable(KEYS[4], 'it is not a counter') end
local arrival = whole(redis.call('GET', KEYS[5]) or '0')
if not arrival then return unreadable(KEYS[5], 'it is not a time') end

local starts = period_starts(now)
local function reset(of)
  local seconds = resets_in(of.period, starts, now)
  return seconds and text(seconds) or ''
end

local next_arrival, burst_left
if rate then
  next_arrival, burst_left = admit(arrival, rate, now)
  if not next_arrival then return { 'rate_limited', text(burst_left) } end
end
if not covers(limit, by_token, cost, starts) then return { 'credits_exhausted', reset(limit) } end
if not covers(budget, by_account, cost, starts) then return { 'budget_exhausted', reset(budget) } end

add(by_token, cost, starts)
add(by_account, cost, starts)
write_counter(KEYS[3], by_token)
write_counter(KEYS[4], by_account)
if next_arrival then
  -- Kept an hour longer than it says anything: that is cheap, and a clock may step back.
  redis.call('SET', KEYS[5], text(next_arrival), 'PX', text(math.ceil((next_arrival - now) / 1000) + 3600000))
end

local function left(of, counter)
  return of and math.max(of.credits - used_in(counter, of.period, starts), 0)
end
local under_limit, under_budget = left(limit, by_token), left(budget, by_account)
local remaining = under_limit and under_budget and math.min(under_limit, under_budget) or under_limit or under_budget
local answer = {
  'granted',
  text(used_in(by_token, limit and limit.period or 'month', starts)),
  token[1],
  remaining and text(remaining) or '',
  limit and reset(limit) or '',
  burst_left and text(burst_left) or '',
  text(now),
}
local kept = { ARGV[4], text(cost), text(now), unpack(answer, 2) }
redis.call('SET', KEYS[6], table.concat(kept, '|'), 'PX', ARGV[5])
return answer
