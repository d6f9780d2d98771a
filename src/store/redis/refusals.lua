-- Counts refusals, once for each batch.
--
-- KEYS  1 the batch's mark · 2… for each token and day: the refusals · whose usage there is on that day
-- ARGV  1 how long the mark is kept (ms) · 2 how long usage is kept (µs) · 3 time (µs), empty: the server's
--       4… for each token and day: the day's end (s) · whose (id or `-`) · how many fields, then for each:
--       field · count
-- Returns how many were counted

local now = clock(ARGV[3])
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end
local counted = 0
local key, arg = 2, 4
while KEYS[key] do
  local left = text(usage_left(tonumber(ARGV[arg]), tonumber(ARGV[2]), now))
  redis.call('SADD', KEYS[key + 1], ARGV[arg + 1])
  local fields = tonumber(ARGV[arg + 2])
  arg = arg + 3
  for _ = 1, fields do
    redis.call('HINCRBY', KEYS[key], ARGV[arg], ARGV[arg + 1])
    arg = arg + 2
    counted = counted + 1
  end
  redis.call('PEXPIRE', KEYS[key], left)
  redis.call('PEXPIRE', KEYS[key + 1], left)
  key = key + 2
end
return counted
