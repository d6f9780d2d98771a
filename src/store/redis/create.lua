-- Keeps a new token, and its account before it where one is given. All or nothing. The account's epoch goes on, and those
-- who listen are told, and a note is added to the trail, in the same step.
--
-- KEYS  1 token's record · 2 the account's ids · 3 the account's epoch · 4 the account's secret tokens
--       5 the trail · 6 what of the trail is about the note's target
--       7 account's record; absent: the account is there already
-- ARGV  1 token's id · 2 its value's digest · 3 its version · 4 the channel for events
--       5 `secret` if it is a secret token · 6 time (µs), empty: the server's · 7 the note
--       8 how many of the following belong to the account · 9… field, value: first the account's, then the token's
-- Returns created
--         again      a record with this id and this digest is there: the same call came before
--         exists     a record with this id is there, of another value
--         account    the account is there
-- Where it is not `created`, nothing was changed.

if KEYS[7] and redis.call('EXISTS', KEYS[7]) == 1 then return 'account' end
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], 'digest') == ARGV[2] and not KEYS[7] then return 'again' end
  return 'exists'
end
local function next_epoch()
  return string.format('%.0f', redis.call('INCR', KEYS[3]))
end
add_to_trail(KEYS[5], KEYS[6], ARGV[6], ARGV[7])
local of_account = tonumber(ARGV[8])
local token_epoch = next_epoch()
redis.call('HSET', KEYS[1], unpack(ARGV, 9 + of_account))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
if ARGV[5] == 'secret' then redis.call('SADD', KEYS[4], ARGV[1]) end
redis.call('PUBLISH', ARGV[4], table.concat({ 'policy', ARGV[1], ARGV[3], token_epoch }, ' '))
if KEYS[7] then
  redis.call('SADD', KEYS[4], 'complete')
  redis.call('HSET', KEYS[7], unpack(ARGV, 9, 8 + of_account))
  redis.call('PUBLISH', ARGV[4], 'account ' .. next_epoch())
end
return 'created'
