-- Writes a field of a record, if the record is there and the field is empty. The version stays.
--
-- KEYS  1 the record
-- ARGV  1 field · 2 value
-- Returns 1 if it was written, else 0

if redis.call('HGET', KEYS[1], ARGV[1]) ~= '' then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
