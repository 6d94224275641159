-- Forgets dead letters; their events stay failed. KEYS: the stream. ARGV: group, numbers. Returns how many were there.
local count = 0
for i = 2, #ARGV do
    if take(KEYS[1], ARGV[1], ARGV[i]) then count = count + 1 end
end
return count
