-- Stores events whose ids are not known.
-- KEYS: the prefix, the streams.
-- ARGV: the lifetimes of a known id and of an index entry, and the tolerance of the time in an id, all in milliseconds; 1 to store nothing
-- more; then of each event its id, type, source, instance, JSON, the hash of its content, the number of its stream, and if its id tells
-- when it was made: that in milliseconds, the 16 bytes of the id and its bucket, else three times nothing.
-- Returns: of each event its new entry; `=` and the content hash of an event that is known; `!` if it is not stored.
-- Touches: of each event one entry and one bucket of ids (24 bytes per id), one index entry, or both. Writes each event once.
local prefix, window, kept, tolerance = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local function content_of(ids, bytes)
    local from = 1
    while true do
        local at = string.find(ids, bytes, from, true)
        if not at then return end
        if at % 24 == 1 then return string.sub(ids, at + 16, at + 23) end
        from = at + 1
    end
end
local answers, buckets, added = {}, {}, {}
for i = 5, #ARGV, 10 do
    local id, content, number, at, bytes, bucket = ARGV[i], ARGV[i + 5], ARGV[i + 6], tonumber(ARGV[i + 7]), ARGV[i + 8], nil
    local known
    if at then
        bucket = prefix .. ':ids:' .. ARGV[i + 9]
        buckets[bucket] = buckets[bucket] or redis.call('GET', bucket) or ''
        known = added[bytes] or content_of(buckets[bucket], bytes)
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
            'status', 'pending', 'instance_id', ARGV[i + 3])
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
