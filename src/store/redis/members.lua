-- Writes a member, or takes one away, if its version is the one that the caller builds on and nobody else has its name. A
-- note is added to the trail in the same step.
--
-- KEYS  1 the account's members · 2 the trail · 3 what of the trail is about the note's target
-- ARGV  1 the member's id · 2 the version built on, empty: the member is new · 3 the version after the write
--       4 the member's text, empty: the member goes · 5 the name as it is compared
--       6 time (µs), empty: the server's · 7 the note
-- Returns done, the version after the write
--         conflict, the stored version
--         missing
--         taken      another member has the name
--         unreadable, key, why
-- Where it is not `done`, nothing was changed.

-- What has to be known of a member, from its text: the version and the name as it is compared. Nil: it cannot be read.
local function head(kept)
  local is_json, member = pcall(cjson.decode, kept)
  if not is_json or type(member) ~= 'table' then return nil end
  local version, lower = member.version, member.lower
  if type(version) ~= 'number' or version < 0 or version % 1 ~= 0 or type(lower) ~= 'string' then return nil end
  return { version = text(version), lower = lower }
end

local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept then
  local stored = head(kept)
  if not stored then return unreadable(KEYS[1], ARGV[1] .. ' is not of its form') end
  if stored.version ~= ARGV[2] then return { 'conflict', stored.version } end
elseif ARGV[2] ~= '' then
  return { 'missing' }
end
if ARGV[4] == '' then
  add_to_trail(KEYS[2], KEYS[3], ARGV[6], ARGV[7])
  redis.call('HDEL', KEYS[1], ARGV[1])
  return { 'done', ARGV[3] }
end
local members = redis.call('HGETALL', KEYS[1])
for at = 1, #members, 2 do
  -- A member that cannot be read cannot sign in; its name does no harm.
  local other = members[at] ~= ARGV[1] and head(members[at + 1])
  if other and other.lower == ARGV[5] then return { 'taken' } end
end
add_to_trail(KEYS[2], KEYS[3], ARGV[6], ARGV[7])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return { 'done', ARGV[3] }
