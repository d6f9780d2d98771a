-- Writes fields of a record, if its version is the one that the caller builds on; its version goes up by one.
--
-- KEYS  1 the record
-- ARGV  1 the version built on · 2… field, value
-- Returns done, the new version
--         conflict, the stored version
--         missing
--         unreadable, key, why

if redis.call('EXISTS', KEYS[1]) == 0 then return { 'missing' } end
local version = redis.call('HGET', KEYS[1], 'version')
if not version or not string.match(version, '^%d+$') then
  return { 'unreadable', KEYS[1], '`version` is not a number' }
end
if version ~= ARGV[1] then return { 'conflict', version } end
local new = string.format('%.0f', tonumber(version) + 1)
redis.call('HSET', KEYS[1], 'version', new, unpack(ARGV, 2))
return { 'done', new }
