-- Reads the statuses of events: from the consumer groups, and from the status hash of each event.
-- KEYS: the prefix, the streams.
-- ARGV: of each event its entry, type, id, instance and the number of its stream.
-- Returns: of each event its status, retries, error, and the time of its completion in milliseconds (0 if it is not known).
-- Touches: the figures of each stream, the records of all subscriptions; of each event its status hash, and a pending entry per
-- subscription. No event is read.
local prefix, delivered = KEYS[1], {}
for number = 1, #KEYS - 1 do
    delivered[number] = {}
    for _, group in ipairs(groups_of(KEYS[number + 1])) do delivered[number][group.name] = group['last-delivered-id'] end
end
local records, known = {}, redis.call('HGETALL', prefix .. ':subscriptions')
for i = 1, #known, 2 do
    local record = cjson.decode(known[i + 1])
    record.xgroup = known[i]
    records[#records + 1] = record
end
local answers = {}
for i = 1, #ARGV, 5 do
    local entry, event_type, id, instance, number = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
    local stored, counting = fields(redis.call('HGETALL', prefix .. ':status:' .. id)), {}
    local open, begun, error = stored['local'] == 'pending' or stored['local'] == 'processing', stored['local'] ~= nil, nil
    for _, record in ipairs(records) do
        local xgroup = record.xgroup
        local counts = is_after(entry, record.after[number] or '0-0') and (record.instance == '' or record.instance == instance)
        counting[xgroup] = counts
        local last = delivered[number][xgroup]
        if counts and last and matches(pattern_at(record, number, entry), event_type) then
            if is_after(entry, last) then
                open = true
            elseif redis.call('XPENDING', KEYS[number + 1], xgroup, entry, entry, 1)[1] then
                open, begun = true, true
            else
                begun = true
            end
        end
    end
    local dead, ended = stored['local'] == 'failed', 0
    for name, value in pairs(stored) do
        -- A subscription that is younger than the event, or was removed, does not count.
        if counting[string.match(name, '^again:(.*)')] then
            open, begun = true, true
        elseif counting[string.match(name, '^dead:(.*)')] then
            dead, begun, error = true, true, error or value
        elseif counting[string.match(name, '^done:(.*)')] then
            ended = math.max(ended, tonumber(value))
        end
    end
    local status = dead and 'failed' or 'completed'
    if open then status = begun and 'processing' or 'pending' end
    answers[#answers + 1] = { status, stored.retries or '0', status == 'failed' and (error or stored.error) or '',
        status == 'completed' and string.format('%.0f', ended) or '0' }
end
return answers
