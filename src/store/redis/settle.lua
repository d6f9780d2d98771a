-- Closes a lease: what was spent is used for good, the rest is given back, and the usage it paid for is counted. A
-- stranded lease gets its true figure. Said again it changes nothing. A lease that is not known is kept as closed, so that
-- a reserve that is still under way grants nothing.
--
-- KEYS  1 the lease · 2 token's counter · 3 account's counter · 4 the account's open leases
--       5… for each day with usage: the token's cells · whose usage there is on that day
-- ARGV  1 what is drawn on (`ID/POOL`) · 2 the lease's id · 3 the token's id · 4 what was spent
--       5 how long a closed lease is kept (µs) · 6 how long an unknown one (µs) · 7 how long usage is kept (µs)
--       8 time (µs), empty: the server's
--       9… for each day: its end (s) · how many cells, then for each: field · requests · credits · bytes
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

-- What each cell will hold. All is read before anything is written.
local days = {}
local key, arg = 5, 9
while KEYS[key] do
  local day = { cells_of = KEYS[key], whose = KEYS[key + 1], ends = tonumber(ARGV[arg]), cells = {} }
  local count = tonumber(ARGV[arg + 1])
  arg = arg + 2
  for _ = 1, count do
    local field = ARGV[arg]
    local held = day.cells[field]
    if not held then
      local written = redis.call('HGET', day.cells_of, field) or '0 0 0'
      local requests, credits, bytes = string.match(written, '^(%d+) (%d+) (%d+)$')
      if not requests then return unreadable(day.cells_of, 'it holds what is no usage') end
      held = { tonumber(requests), tonumber(credits), tonumber(bytes) }
      day.cells[field] = held
    end
    for part = 1, 3 do
      held[part] = math.min(held[part] + tonumber(ARGV[arg + part]), MAX_CREDITS)
    end
    arg = arg + 4
  end
  table.insert(days, day)
  key = key + 2
end

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
  for field, held in pairs(day.cells) do
    redis.call('HSET', day.cells_of, field, text(held[1]) .. ' ' .. text(held[2]) .. ' ' .. text(held[3]))
  end
  redis.call('SADD', day.whose, ARGV[3])
  local left = text(usage_left(day.ends, tonumber(ARGV[7]), now))
  redis.call('PEXPIRE', day.cells_of, left)
  redis.call('PEXPIRE', day.whose, left)
end
return { 'settled' }
