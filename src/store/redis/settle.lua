-- Closes a lease: what was spent is used for good, the rest is given back, and the usage it paid for is counted. A
-- stranded lease gets its true figure. Said again it changes nothing. A lease that is not known is kept as closed, so that
-- a reserve that is still under way grants nothing.
--
-- KEYS  1 the lease · 2 token's counter · 3 account's counter · 4 the account's open leases · 5 when tokens were last seen
--       6… for each day with usage: the token's cells · whose usage there is on that day · sums by hour · sums of the day ·
--       by token · by data set · by token of the month · by data set of the month
-- ARGV  1 what is drawn on (`ID/POOL`) · 2 the lease's id · 3 the token's id · 4 what was spent
--       5 how long a closed lease is kept (µs) · 6 how long an unknown one (µs) · 7 how long usage is kept (µs)
--       8 time (µs), empty: the server's · 9 the last second of the last hour with usage; empty: there is none
--       10… for each day: its end (s) · its month's end (s) · how many cells, then for each:
--       HH · pool · operation · data set · requests · credits · bytes
-- Returns settled, unknown (nothing was counted), or unreadable, key, why

local now = clock(ARGV[8])
local lease, bad_lease = read_lease(KEYS[1], now)
if bad_lease then return unreadable(KEYS[1], 'it is not of its form') end
if not lease then
  write_lease(KEYS[1], { state = 'closed', kept_until = now + tonumber(ARGV[6]) }, now)
  return { 'unknown' }
end
if lease.state == 'closed' or lease.drawn_on ~= ARGV[1] then return { 'unknown' } end
local counters = {}
for at = 2, 3 do
  counters[at] = read_counter(KEYS[at])
  if not counters[at] then return unreadable(KEYS[at], 'it is not a counter') end
end

-- What each cell and each sum will hold. All is read before anything is written.
local held, bad_key = {}, nil
local function count(key, field, arg)
  held[key] = held[key] or {}
  local figures = held[key][field]
  if not figures then
    local written = redis.call('HGET', key, field) or '0 0 0'
    local requests, credits, bytes = string.match(written, '^(%d+) (%d+) (%d+)$')
    if not requests then
      bad_key = bad_key or key
      return
    end
    figures = { tonumber(requests), tonumber(credits), tonumber(bytes) }
    held[key][field] = figures
  end
  for part = 1, 3 do
    figures[part] = math.min(figures[part] + tonumber(ARGV[arg + part - 1]), MAX_CREDITS)
  end
end

local days = {}
local key, arg = 6, 10
while KEYS[key] do
  local cells, by_hour, of_day = KEYS[key], KEYS[key + 2], KEYS[key + 3]
  table.insert(days, { at = key, ends = tonumber(ARGV[arg]), month_ends = tonumber(ARGV[arg + 1]) })
  local cells_left = tonumber(ARGV[arg + 2])
  arg = arg + 3
  while cells_left > 0 do
    local hour, pool, operation, dataset = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    local field = table.concat({ hour, pool, operation, dataset }, '|')
    count(cells, field, arg + 4)
    count(by_hour, field, arg + 4)
    count(of_day, pool .. '|' .. operation, arg + 4)
    for _, by in ipairs({ 4, 6 }) do
      count(KEYS[key + by], pool .. '|' .. ARGV[3], arg + 4)
      count(KEYS[key + by + 1], pool .. '|' .. dataset, arg + 4)
    end
    arg, cells_left = arg + 7, cells_left - 1
  end
  key = key + 8
end
if bad_key then return unreadable(bad_key, 'it holds what is no usage') end

local spent, starts = tonumber(ARGV[4]), period_starts(lease.taken_at)
for at = 2, 3 do
  if lease.state == 'open' then
    unlease(counters[at], lease.granted, spent, starts)
  else
    correct(counters[at], lease.granted, spent, starts)
    counters[at].stranded = math.max(counters[at].stranded - lease.granted, 0)
  end
end
write_counter(KEYS[2], counters[2])
write_counter(KEYS[3], counters[3])
redis.call('ZREM', KEYS[4], ARGV[2])
write_lease(KEYS[1], { state = 'closed', kept_until = now + tonumber(ARGV[5]) }, now)
for _, day in ipairs(days) do
  begin_sums(KEYS[day.at + 1], KEYS[day.at + 3], KEYS[day.at + 6], KEYS[day.at + 7])
  redis.call('SADD', KEYS[day.at + 1], ARGV[3])
end
for of, fields in pairs(held) do
  for field, figures in pairs(fields) do
    redis.call('HSET', of, field, text(figures[1]) .. ' ' .. text(figures[2]) .. ' ' .. text(figures[3]))
  end
end
for _, day in ipairs(days) do
  for at = day.at, day.at + 7 do
    local ends = at < day.at + 6 and day.ends or day.month_ends
    redis.call('PEXPIRE', KEYS[at], text(usage_left(ends, tonumber(ARGV[7]), now)))
  end
end
see(KEYS[5], ARGV[3], ARGV[9], now)
return { 'settled' }
