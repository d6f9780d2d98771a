-- Reports a node, or lists those that live. The others are forgotten: when the list is read, and when a node comes new.
--
-- KEYS  1 the nodes
-- ARGV  1 time (µs), empty: the server's; then nothing, or:
--       2 the node · 3 its epoch · 4 credits it holds · 5 how long this is good (µs) · 6 its name
-- Returns for a report: nothing. Else: node, `epoch|seen at (µs)|leased|life (µs)|name`, …

local now = clock(ARGV[1])
local function alive()
  local nodes = redis.call('HGETALL', KEYS[1])
  local living = {}
  for at = 1, #nodes, 2 do
    local seen_at, life = string.match(nodes[at + 1], '^%d+|(%d+)|%d+|(%d+)|')
    if seen_at and now - tonumber(seen_at) < tonumber(life) then
      table.insert(living, nodes[at])
      table.insert(living, nodes[at + 1])
    else
      redis.call('HDEL', KEYS[1], nodes[at])
    end
  end
  return living
end

if not ARGV[2] then return alive() end
local report = table.concat({ ARGV[3], text(now), ARGV[4], ARGV[5], ARGV[6] }, '|')
if redis.call('HSET', KEYS[1], ARGV[2], report) == 1 then alive() end
return {}
