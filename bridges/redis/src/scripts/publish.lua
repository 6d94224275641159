-- Stores events whose ids are not known. KEYS: the prefix, the streams. ARGV: how long an id is known and how long an index entry lasts, in
-- milliseconds, and how far the time in an id may be off; then of each event its id, type, source, instance, JSON, what stands for its
-- content, the number of its stream, and if its id tells when it was made: that in milliseconds, its 16 bytes and its bucket; else nothing.
-- Returns the entry of each; of one that was known, `=` and what stands for its content.
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
local answers = {}
for i = 4, #ARGV, 10 do
    local id, content, number, at, bytes, bucket = ARGV[i], ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7]), ARGV[i + 8], nil
    local known
    if at then
        bucket = prefix .. ':ids:' .. ARGV[i + 9]
        known = look_up(redis.call('GET', bucket) or '', bytes)
    else
        local index = redis.call('GET', prefix .. ':at:' .. id)
        known = index and string.sub(index, -8)
    end
    if known then
        answers[#answers + 1] = '=' .. known
    else
        local entry = redis.call('XADD', KEYS[number + 1], '*', 'event', ARGV[i + 4], 'id', id, 'type', ARGV[i + 1], 'source', ARGV[i + 2],
            'status', 'pending', 'instance_id', ARGV[i + 3])
        if at then
            redis.call('APPEND', bucket, bytes .. content)
            redis.call('PEXPIRE', bucket, window)
        end
        if not at or math.abs(at - tonumber(string.match(entry, '%d+'))) > tolerance then
            redis.call('SET', prefix .. ':at:' .. id, number .. ' ' .. entry .. ' ' .. content, 'PX', kept)
        end
        answers[#answers + 1] = entry
    end
end
return answers
