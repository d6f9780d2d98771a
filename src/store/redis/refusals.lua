-- Counts refusals, once for each batch.
--
-- KEYS  1 the batch's mark · 2 when tokens were last seen
--       3… for each token and day: the refusals · whose usage there is on that day · sums by hour · sums of the day ·
--       by token of the month · by data set of the month
-- ARGV  1 how long the mark is kept (ms) · 2 how long usage is kept (µs) · 3 time (µs), empty: the server's
--       4… for each token and day: the day's end (s) · its month's end (s) · whose (id or `-`) ·
--       the last second of the last hour · how many, then for each: HH · code · count
-- Returns how many were counted

local now = clock(ARGV[3])
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end
local counted = 0
local key, arg = 3, 4
while KEYS[key] do
  local of_token, active, by_hour, of_day = KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
  local whose, last_second = ARGV[arg + 2], ARGV[arg + 3]
  begin_sums(active, of_day, KEYS[key + 4], KEYS[key + 5])
  redis.call('SADD', active, whose)
  local kept_for = tonumber(ARGV[2])
  local left, month_left = usage_left(tonumber(ARGV[arg]), kept_for, now), usage_left(tonumber(ARGV[arg + 1]), kept_for, now)
  local refusals = tonumber(ARGV[arg + 4])
  arg = arg + 5
  for _ = 1, refusals do
    local hour, code, count = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
    redis.call('HINCRBY', of_token, hour .. '|' .. code, count)
    redis.call('HINCRBY', by_hour, hour .. '|refused|' .. code, count)
    redis.call('HINCRBY', of_day, 'refused|' .. code, count)
    arg = arg + 3
    counted = counted + 1
  end
  for at = key, key + 5 do
    redis.call('PEXPIRE', KEYS[at], text(at < key + 4 and left or month_left))
  end
  if whose ~= '-' then see(KEYS[2], whose .. '|refused', last_second, now) end
  key = key + 6
end
return counted
