-- Remembers signatures of one second, and says of each whether it was used before.
--
-- KEYS  1 the second's signatures
-- ARGV  1 time (µs), empty: the server's · 2 how long they are to be remembered from now on (µs)
--       3 how many may be remembered · 4… for each: fingerprint · nonce of this use
-- Returns for each: new    it was not used; from now on it was
--                   seen   it was used
--                   full   no more can be remembered

local now, life, most = clock(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ends = tonumber(redis.call('HGET', KEYS[1], 'until') or '0')
if ends <= now then
  redis.call('DEL', KEYS[1])
  ends = 0
end
-- `until` is a field, too.
local room = most - math.max(redis.call('HLEN', KEYS[1]) - 1, 0)
local answers, fresh = {}, {}
for arg = 4, #ARGV, 2 do
  local fingerprint, nonce = ARGV[arg], ARGV[arg + 1]
  local used = fresh[fingerprint] or redis.call('HGET', KEYS[1], fingerprint)
  local answer
  if used then
    answer = used == nonce and 'new' or 'seen'
  elseif room < 1 then
    answer = 'full'
  else
    redis.call('HSET', KEYS[1], fingerprint, nonce)
    fresh[fingerprint] = nonce
    room = room - 1
    answer = 'new'
  end
  answers[#answers + 1] = answer
end
if next(fresh) and now + life > ends then
  ends = now + life
  redis.call('HSET', KEYS[1], 'until', text(ends))
end
if ends > 0 then redis.call('PEXPIRE', KEYS[1], text(math.ceil((ends - now) / 1000))) end
return answers
