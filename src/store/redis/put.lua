-- Writes fields of a record, if its version is the one that the caller builds on; its version goes up by one. The
-- account's epoch goes on, those who listen are told, and a note is added to the trail, in the same step.
--
-- KEYS  1 the record · 2 the account's epoch · 3 the trail · 4 what of the trail is about the note's target
-- ARGV  1 the version built on · 2 the channel for events · 3 the token's id; empty: the record is the account's
--       4 time (µs), empty: the server's · 5 the note · 6… field, value
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
add_to_trail(KEYS[3], KEYS[4], ARGV[4], ARGV[5])
local new = string.format('%.0f', tonumber(version) + 1)
local epoch = string.format('%.0f', redis.call('INCR', KEYS[2]))
redis.call('HSET', KEYS[1], 'version', new, unpack(ARGV, 6))
local event = ARGV[3] == '' and { 'account', epoch } or { 'policy', ARGV[3], new, epoch }
redis.call('PUBLISH', ARGV[2], table.concat(event, ' '))
return { 'done', new }
