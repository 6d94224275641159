-- Gives deliveries back. KEYS: the stream. ARGV: member; then of each unit, the key of its stream, entry. Returns the numbers of those that
-- somebody else holds.
local stream, me, lost = KEYS[1], ARGV[1], {}
for i = 2, #ARGV, 3 do
    local unit, key, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local who = holder(key, unit, entry)
    if who == me then
        local found = redis.call('XCLAIM', key, unit, '~', 0, entry, 'JUSTID')
        if key ~= stream .. ':again:' .. unit then
            if #found == 0 then
                -- It was removed, and is pending no more.
                redis.call('HINCRBY', key .. ':lost', 'entries', 1)
                redis.call('HINCRBY', key .. ':ended', unit, 1)
            else
                redis.call('HINCRBY', key .. ':given', unit, 1)
            end
        end
        local marks, place = stream .. ':marks:' .. unit, key .. ' ' .. entry
        local mark = redis.call('HGET', marks, place)
        if mark then redis.call('HSET', marks, place, string.match(mark, '%d+')) end
    elseif who and who ~= '~' then
        lost[#lost + 1] = (i - 2) / 3
    end
end
ring(stream)
return lost
