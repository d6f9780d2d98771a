-- Gives back what an open lease holds beyond what is kept. Said again, or late after a smaller figure, it changes nothing.
--
-- KEYS  1 the lease · 2 token's counter · 3 account's counter
-- ARGV  1 what is drawn on (`ID/POOL`) · 2 what is kept · 3 time (µs), empty: the server's
-- Returns done, or unreadable, key, why

local now = clock(ARGV[3])
local lease, bad_lease = read_lease(KEYS[1], now)
if bad_lease then return unreadable(KEYS[1], 'it is not of its form') end
if not lease or lease.state ~= 'open' or lease.drawn_on ~= ARGV[1] then return { 'done' } end
local back = math.max(lease.granted - tonumber(ARGV[2]), 0)
if back == 0 then return { 'done' } end
local counters = {}
for at = 2, 3 do
  counters[at] = read_counter(KEYS[at])
  if not counters[at] then return unreadable(KEYS[at], 'it is not a counter') end
end
for at = 2, 3 do
  unlease(counters[at], back, 0, period_starts(lease.taken_at))
  write_counter(KEYS[at], counters[at])
end
lease.granted = lease.granted - back
write_lease(KEYS[1], lease, now)
return { 'done' }
