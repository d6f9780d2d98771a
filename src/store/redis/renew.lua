-- Lets open leases of one account live on.
--
-- KEYS  1 the account's open leases · 2… the leases
-- ARGV  1 life (µs) · 2 time (µs), empty: the server's · 3… for each lease: its id · what is drawn on (`ID/POOL`)
-- Returns for each lease `open` or `over`; or unreadable, key, why

local now = clock(ARGV[2])
local expires_at = now + tonumber(ARGV[1])
local answer = {}
for at = 2, #KEYS do
  local id, drawn_on = ARGV[at * 2 - 1], ARGV[at * 2]
  local lease, bad_lease = read_lease(KEYS[at], now)
  if bad_lease then return unreadable(KEYS[at], 'it is not of its form') end
  local open = lease and lease.state == 'open' and lease.drawn_on == drawn_on
  if open and lease.expires_at < expires_at then
    lease.expires_at = expires_at
    write_lease(KEYS[at], lease, now)
    redis.call('ZADD', KEYS[1], text(expires_at), id)
  end
  table.insert(answer, open and 'open' or 'over')
end
return answer
