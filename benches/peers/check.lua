-- Peer 5, the part in Redis: all checks and the credits of one request in one step.
-- KEYS  1: the token's hash (`id`, `account`, `status`, `expires`, `limit`, `domains`, `domain:HOST`, `grant:DATASET:OPERATION`)
--       2: the credits it used this month
-- ARGV  1: the page's host  2: the data set  3: the operation  4: the cost
-- Answers {"pass", id, account, used, limit} or {code}.
local token = redis.call('HMGET', KEYS[1], 'id', 'account', 'status', 'expires', 'limit', 'domains',
    'domain:' .. ARGV[1], 'grant:' .. ARGV[2] .. ':' .. ARGV[3])
if not token[1] then return {'token_invalid'} end
if token[3] ~= 'active' then return {'token_disabled'} end
if token[4] ~= '' and tonumber(token[4]) <= tonumber(redis.call('TIME')[1]) then return {'token_expired'} end
if token[6] ~= '0' and not token[7] then return {'domain_denied'} end
if not token[8] then return {'dataset_denied'} end
local used = redis.call('INCRBY', KEYS[2], ARGV[4])
if used == tonumber(ARGV[4]) then redis.call('EXPIRE', KEYS[2], 5356800) end
if used > tonumber(token[5]) then
    redis.call('DECRBY', KEYS[2], ARGV[4])
    return {'credits_exhausted'}
end
return {'pass', token[1], token[2], used, token[5]}
