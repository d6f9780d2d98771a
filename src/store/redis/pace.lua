-- Takes passes of a token's throttle, as src/ledger/pace.rs does.
--
-- KEYS  1 token's record · 2 token's throttle
-- ARGV  1 how many are wanted · 2 time (µs), empty: the server's
-- Returns unlimited
--         passes, how many, for how long those after the first may be held (µs), how many more could be had at once
--         wait, for how long (µs)
--         unreadable, key, why

local now = clock(ARGV[2])
local token = redis.call('HMGET', KEYS[1], 'rate', 'burst')
if not token[1] and not token[2] and redis.call('EXISTS', KEYS[1]) == 0 then
  return unreadable(KEYS[1], 'there is none')
end
if not token[1] then return unreadable(KEYS[1], '`rate` is missing') end
if not token[2] then return unreadable(KEYS[1], '`burst` is missing') end
local rate, bad_rate = parse_rate(token[1], token[2])
if bad_rate then return unreadable(KEYS[1], '`rate` and `burst` are not a rate') end
if not rate then return { 'unlimited' } end
local arrival = whole(redis.call('GET', KEYS[2]) or '0')
if not arrival then return unreadable(KEYS[2], 'it is not a time') end

local full = rate.spacing * rate.burst
local function keep(cell)
  -- Kept an hour longer than it says anything: that is cheap, and a clock may step back.
  redis.call('SET', KEYS[2], text(cell), 'PX', text(math.ceil((cell - now) / 1000) + 3600000))
end
local first = math.min(math.max(arrival, now), now + full) + rate.spacing
if first - now > full then
  -- Further ahead than a burst: from a larger limit, or a clock that stepped back. The wait must come to its end.
  if arrival > now + full then keep(now + full) end
  return { 'wait', text(first - now - full) }
end
-- Those after the first may be used until the hold is over, and count as if each came then.
local hold = math.min(math.max(math.floor(rate.burst * 200000 / rate.per_second), 100000), 200000)
local most = math.max(math.min(tonumber(ARGV[1]), math.floor(rate.per_second / 10)), 1)
local held_from = math.max(first, now + hold)
local more = math.floor((now + full - held_from) / rate.spacing)
more = math.min(math.max(more, 0), most - 1)
local next_arrival = more > 0 and held_from + more * rate.spacing or first
keep(next_arrival)
local remaining = math.floor((full - math.max(next_arrival - now, 0)) / rate.spacing)
return { 'passes', text(1 + more), text(hold), text(math.max(remaining, 0)) }
