-- Removes dead letters. Their events stay failed.
-- KEYS: the prefix, the streams.
-- ARGV: group, numbers of dead letters.
-- Returns: how many of them were there.
-- Touches: of each letter its hash field and two indices. Reads each letter once.
local count = 0
for i = 2, #ARGV do
    if take_dead_letter(KEYS[1], ARGV[1], ARGV[i]) then count = count + 1 end
end
return count
