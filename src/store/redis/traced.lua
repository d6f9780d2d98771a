-- Reads the trail, newest first. trail.lua stands before it.
--
-- KEYS  1 the trail · 2 which entries are about a target; absent: all are asked for
-- ARGV  1 the greatest id, `+`: any · 2 how many
-- Returns id, time (µs), note, …

local found
if KEYS[2] then
  found = {}
  local greatest = ARGV[1] == '+' and '+' or '[' .. sortable(ARGV[1])
  for _, member in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[2], greatest, '-', 'LIMIT', 0, ARGV[2])) do
    local id = string.gsub(member, '%a', '')
    table.insert(found, redis.call('XRANGE', KEYS[1], id, id)[1] or { id, {} })
  end
else
  found = redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])
end
local entries = {}
for _, entry in ipairs(found) do
  local id, fields = entry[1], entry[2]
  local by_name = { at = '', note = '' }
  for at = 1, #fields, 2 do by_name[fields[at]] = fields[at + 1] end
  table.insert(entries, id)
  table.insert(entries, by_name.at)
  table.insert(entries, by_name.note)
end
return entries
