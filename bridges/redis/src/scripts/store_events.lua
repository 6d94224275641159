-- Stores events whose ids are not known. KEYS: the prefix, the streams. ARGV: how long an id is known and how long an index entry lasts, in
-- milliseconds, how far the time in an id may be off, and 1 if nothing more is to be stored; then of each event its id, type, source, instance, JSON, what stands for its
-- content, the number of its stream, if its id tells when it was made: that in milliseconds, its 16 bytes and its bucket; else nothing thrice;
-- and more fields of its entry as a JSON array, or nothing.
-- Returns the entry of each; of one that was known, `=` and what stands for its content; of one that is not stored, `!`.
local prefix, window, kept, tolerance = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local function look_up(ids, bytes)
    local from = 1
    while true do
        local at = string.find(ids, bytes, from, true)
        if not at then return end
        if at % 24 == 1 then return string.sub(ids, at + 16, at + 23) end
        from = at + 1
    end
end
local answers, known_before, added = {}, {}, {}
for i = 5, #ARGV, 11 do
    local id, content, number, at, bytes, bucket = ARGV[i], ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7]), ARGV[i + 8], nil
    local known
    if at then
        bucket = prefix .. ':ids:' .. ARGV[i + 9]
        known_before[bucket] = known_before[bucket] or redis.call('GET', bucket) or ''
        known = added[bytes] or look_up(known_before[bucket], bytes)
    else
        local index = redis.call('GET', prefix .. ':at:' .. id)
        known = index and string.sub(index, -8)
    end
    if known then
        answers[#answers + 1] = '=' .. known
    elseif ARGV[4] == '1' then
        answers[#answers + 1] = '!'
    else
        local entry = redis.call('XADD', KEYS[number + 1], '*', 'event', ARGV[i + 4], 'id', id, 'type', ARGV[i + 1], 'source', ARGV[i + 2],
            'status', 'pending', 'instance_id', ARGV[i + 3], unpack(ARGV[i + 10] ~= '' and cjson.decode(ARGV[i + 10]) or {}))
        if at then
            redis.call('APPEND', bucket, bytes .. content)
            redis.call('PEXPIRE', bucket, window)
            added[bytes] = content
        end
        if not at or math.abs(at - tonumber(string.match(entry, '%d+'))) > tolerance then
            redis.call('SET', prefix .. ':at:' .. id, number .. ' ' .. entry .. ' ' .. content, 'PX', kept)
        end
        answers[#answers + 1] = entry
    end
end
return answers
