-- Says what one taking really cost, and gives the rest back to the periods it was taken from. It forgets the lease, so
-- said again it changes nothing; of a lease that is not known it says nothing.
--
-- KEYS  1 the lease · 2 token's counter · 3 account's counter
-- ARGV  1 what was drawn on (`ID/POOL`), as it was taken · 2 what was spent · 3 life of a lease (ms)
--       4 time (µs), empty: the server's
-- Returns settled or unknown, or unreadable, key, why

local lease = redis.call('GET', KEYS[1])
if not lease then return { 'unknown' } end
local drawn_on, cost, taken_at = parse_lease(lease)
if not drawn_on then return unreadable(KEYS[1], 'it is not of its form') end
if drawn_on ~= ARGV[1] or clock(ARGV[4]) - taken_at >= tonumber(ARGV[3]) * 1000 then return { 'unknown' } end

local back = math.max(cost - tonumber(ARGV[2]), 0)
if back > 0 then
  local starts = period_starts(taken_at)
  local counters = {}
  for at = 2, 3 do
    counters[at] = read_counter(KEYS[at])
    if not counters[at] then return unreadable(KEYS[at], 'it is not a counter') end
  end
  for at = 2, 3 do
    give_back(counters[at], back, starts)
    write_counter(KEYS[at], counters[at])
  end
end
redis.call('DEL', KEYS[1])
return { 'settled' }
