-- Keeps a new token, and its account before it where one is given. All or nothing.
--
-- KEYS  1 token's record · 2 the account's ids · 3 account's record; absent: the account is there already
-- ARGV  1 token's id · 2 its value's digest · 3 how many of the following belong to the account
--       4… field, value: first the account's, then the token's
-- Returns created
--         again      a record with this id and this digest is there: the same call came before
--         exists     a record with this id is there, of another value
--         account    the account is there
-- Where it is not `created`, nothing was changed.

if KEYS[3] and redis.call('EXISTS', KEYS[3]) == 1 then return 'account' end
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], 'digest') == ARGV[2] and not KEYS[3] then return 'again' end
  return 'exists'
end
local of_account = tonumber(ARGV[3])
if KEYS[3] then redis.call('HSET', KEYS[3], unpack(ARGV, 4, 3 + of_account)) end
redis.call('HSET', KEYS[1], unpack(ARGV, 4 + of_account))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 'created'
