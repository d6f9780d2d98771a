-- Reads the trail, newest first.
--
-- KEYS  1 the trail · 2 which entries are about a target; absent: all are asked for
-- ARGV  1 the greatest id, `+`: any · 2 how many
-- Returns id, time (µs), note, …

local found = redis.call('XREVRANGE', KEYS[2] or KEYS[1], ARGV[1], '-', 'COUNT', ARGV[2])
local entries = {}
for _, entry in ipairs(found) do
  local id, fields = entry[1], entry[2]
  if KEYS[2] then
    local of_trail = redis.call('XRANGE', KEYS[1], id, id)[1]
    fields = of_trail and of_trail[2] or {}
  end
  local by_name = { at = '', note = '' }
  for at = 1, #fields, 2 do by_name[fields[at]] = fields[at + 1] end
  table.insert(entries, id)
  table.insert(entries, by_name.at)
  table.insert(entries, by_name.note)
end
return entries
