-- Extends what a member holds of one subscription and stream. KEYS: the stream of the deliveries. ARGV: member, unit, entries. Returns the
-- entries that somebody else holds or has settled, and those that were removed from the stream, which are pending no more.
local mine, held, lost, gone = {}, {}, {}, {}
for _, it in ipairs(redis.call('XPENDING', KEYS[1], ARGV[2], '-', '+', 100000, ARGV[1])) do mine[it[1]] = true end
for i = 3, #ARGV do
    if mine[ARGV[i]] then held[#held + 1] = ARGV[i] else lost[#lost + 1] = ARGV[i] end
end
if #held > 0 then
    held[#held + 1] = 'JUSTID'
    for _, it in ipairs(redis.call('XCLAIM', KEYS[1], ARGV[2], ARGV[1], 0, unpack(held))) do mine[it] = nil end
    for i = 1, #held - 1 do
        if mine[held[i]] then gone[#gone + 1] = held[i] end
    end
end
return { lost, gone }
