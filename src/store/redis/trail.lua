-- Adds to the trail, for the scripts that write what somebody asked for. It stands before them, and is called before their
-- first write, so that what cannot be noted is not done.

-- Adds a note, at the time given (empty: the server's). The ids are the stream's own, so they go up even where the clock
-- goes back.
local function add_to_trail(trail, of_target, given, note)
  local id = redis.call('XADD', trail, '*', 'at', text(clock(given)), 'note', note)
  redis.call('XADD', of_target, id, 'of', '')
end
