-- Adds to the trail, for the scripts that write what somebody asked for. It stands before them, and is called before their
-- first write, so that what cannot be noted is not done.

-- An id of a stream as text that sorts as the ids do: before each number stands a letter for how many digits it has.
local function sortable(id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  return string.char(64 + #ms) .. ms .. '-' .. string.char(64 + #number) .. number
end

-- Adds a note, at the time given (empty: the server's). The ids are the stream's own, so they go up even where the clock
-- goes back. What is about a target is a sorted set of ids and not a stream as well: a stream takes 4 KiB for its first
-- entry, and there is one for each token.
local function add_to_trail(trail, of_target, given, note)
  local id = redis.call('XADD', trail, '*', 'at', text(clock(given)), 'note', note)
  redis.call('ZADD', of_target, 0, sortable(id))
end
