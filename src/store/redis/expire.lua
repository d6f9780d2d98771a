-- Closes leases of an account that expired, as spent in full.
--
-- KEYS  1 the account's open leases. Further names are made from it (see leases.lua): one slot.
-- ARGV  1 how many at most · 2 how long a stranded lease is kept (µs) · 3 time (µs), empty: the server's
-- Returns how many

return close_expired(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), clock(ARGV[3]))
