-- Extends the leases of a member on deliveries of one subscription and stream.
-- KEYS: the stream of the deliveries.
-- ARGV: member, consumer group, the key that names the life of the main stream, the life as of the last call (or nothing), entries.
-- Returns: the entries that another member holds or that are settled; the entries that were removed from the stream, which are no longer
-- pending; the life.
-- Touches: at most 100,000 pending entries of one stream, by their ids, and the string of the life; no event is read.
local mine, held, lost, gone = {}, {}, {}, {}
local life = redis.call('GET', ARGV[3]) or ''
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[2], '-', '+', 100000, ARGV[1])
if pending.err and not string.find(pending.err, 'NOGROUP', 1, true) then return redis.error_reply(pending.err) end
-- No other member can hold a delivery of a stream that was removed.
local is_over = pending.err or (ARGV[4] ~= '' and ARGV[4] ~= life)
for _, found in ipairs(pending) do mine[found[1]] = true end
for i = 5, #ARGV do
    local list = mine[ARGV[i]] and held or is_over and gone or lost
    list[#list + 1] = ARGV[i]
end
if #held > 0 then
    held[#held + 1] = 'JUSTID'
    for _, entry in ipairs(redis.call('XCLAIM', KEYS[1], ARGV[2], ARGV[1], 0, unpack(held))) do mine[entry] = nil end
    for i = 1, #held - 1 do
        if mine[held[i]] then gone[#gone + 1] = held[i] end
    end
end
return { lost, gone, life }
