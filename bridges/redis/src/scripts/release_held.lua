-- Releases deliveries that a member holds, and wakes the other members.
-- KEYS: the prefix, the streams.
-- ARGV: member; then of each delivery its consumer group, the key of its stream, its entry.
-- Returns: the indices, from 0, of the deliveries that another member holds.
-- Touches: the streams and the marks of the deliveries, the counts of lost entries, the notify stream; no event is read.
local prefix, me, lost = KEYS[1], ARGV[1], {}
for i = 2, #ARGV, 3 do
    local xgroup, key, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local holder = holder_of(key, xgroup, entry)
    if holder == me then
        local found = redis.call('XCLAIM', key, xgroup, 'released', 0, entry, 'JUSTID')
        -- Another client has removed the entry from the stream: XCLAIM has ended the delivery.
        if #found == 0 and key ~= prefix .. ':again:' .. xgroup then redis.call('HINCRBY', key .. ':lost', 'entries', 1) end
        -- The mark of a suspect stays, but its call runs no longer.
        local marks, field = prefix .. ':marks:' .. xgroup, key .. ' ' .. entry
        local mark = redis.call('HGET', marks, field)
        if mark then redis.call('HSET', marks, field, string.match(mark, '%d+')) end
    elseif holder and holder ~= 'released' then
        lost[#lost + 1] = (i - 2) / 3
    end
end
notify(prefix)
return lost
