-- Remembers a session.
--
-- KEYS  1 the session
-- ARGV  1 time (µs), empty: the server's · 2 for how long (µs) · 3 the session's text
-- Returns done

local now = clock(ARGV[1])
-- Both are whole, as far as doubles are.
local ends = math.min(now + tonumber(ARGV[2]), MAX_CREDITS)
local left = math.max(math.ceil((ends - now) / 1000), 1)
redis.call('SET', KEYS[1], text(ends) .. '|' .. ARGV[3], 'PX', text(left))
return { 'done' }
