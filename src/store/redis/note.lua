-- Adds to the trail what writes nothing else.
--
-- KEYS  1 the trail · 2 what is about the note's target
-- ARGV  1 time (µs), empty: the server's · 2 the note
-- Returns done

add_to_trail(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return 'done'
