-- How far the handling of events has come. KEYS: the prefix, the streams. ARGV: of each event its entry, type, id, instance and the number of its
-- stream. Returns of each its status, retries, error, and when it was completed, as far as that is written down.
local prefix, delivered = KEYS[1], {}
for number = 1, #KEYS - 1 do
    delivered[number] = {}
    if redis.call('EXISTS', KEYS[number + 1]) == 1 then
        for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[number + 1])) do
            local told = {}
            for i = 1, #group, 2 do told[group[i]] = group[i + 1] end
            delivered[number][told.name] = told['last-delivered-id']
        end
    end
end
local units, known = {}, redis.call('HGETALL', prefix .. ':subscriptions')
for i = 1, #known, 2 do
    local info = cjson.decode(known[i + 1])
    info.unit = known[i]
    units[#units + 1] = info
end
local answers = {}
for i = 1, #ARGV, 5 do
    local entry, event_type, id, instance, number = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4])
    local told, counting, fields = {}, {}, redis.call('HGETALL', prefix .. ':status:' .. id)
    for j = 1, #fields, 2 do told[fields[j]] = fields[j + 1] end
    local open, begun, error = told['local'] == 'pending' or told['local'] == 'processing', told['local'] ~= nil, nil
    for _, unit in ipairs(units) do
        local counts = is_after(entry, unit.after[number] or '0-0') and (unit.instance == '' or unit.instance == instance)
        counting[unit.unit] = counts
        local last = delivered[number][unit.unit]
        if counts and last and matches(pattern_at(unit, number, entry), event_type) then
            if is_after(entry, last) then
                open = true
            elseif redis.call('XPENDING', KEYS[number + 1], unit.unit, entry, entry, 1)[1] then
                open, begun = true, true
            else
                begun = true
            end
        end
    end
    local dead, ended = told['local'] == 'failed', 0
    for name, value in pairs(told) do
        -- Of a subscription that was made later, or is gone, the status does not depend.
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
    answers[#answers + 1] = { status, told.retries or '0', status == 'failed' and (error or told.error) or '',
        status == 'completed' and string.format('%.0f', ended) or '0' }
end
return answers
