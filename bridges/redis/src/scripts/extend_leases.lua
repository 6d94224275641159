-- Extends what a member holds of one subscription and stream. KEYS: the stream of the deliveries. ARGV: member, unit, the key of the main
-- stream's life and what it was at the last time (or nothing), entries. Returns the entries that somebody else holds or has settled; those that
-- were removed from the stream, which are pending no more; and the life.
local mine, held, lost, gone = {}, {}, {}, {}
local life = redis.call('GET', ARGV[3]) or ''
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[2], '-', '+', 100000, ARGV[1])
if pending.err and not string.find(pending.err, 'NOGROUP', 1, true) then return redis.error_reply(pending.err) end
-- Of a stream that is not there any more, nobody else holds anything either.
local is_over = pending.err or (ARGV[4] ~= '' and ARGV[4] ~= life)
for _, it in ipairs(pending) do mine[it[1]] = true end
for i = 5, #ARGV do
    local list = mine[ARGV[i]] and held or is_over and gone or lost
    list[#list + 1] = ARGV[i]
end
if #held > 0 then
    held[#held + 1] = 'JUSTID'
    for _, it in ipairs(redis.call('XCLAIM', KEYS[1], ARGV[2], ARGV[1], 0, unpack(held))) do mine[it] = nil end
    local removed = 0
    for i = 1, #held - 1 do
        if mine[held[i]] then gone[#gone + 1], removed = held[i], removed + 1 end
    end
    if removed > 0 then redis.call('HINCRBY', KEYS[1] .. ':ended', ARGV[2], removed) end
end
return { lost, gone, life }
