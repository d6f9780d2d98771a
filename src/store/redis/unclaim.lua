-- Removes a pointer, if it still holds what the caller wrote.
--
-- KEYS  1 the pointer
-- ARGV  1 what the caller wrote
-- Returns how many were removed

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
