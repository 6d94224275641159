-- Stores events whose ids are not known. KEYS: the prefix, the streams. ARGV: the window in which an id is known and how long an index entry
-- lasts, in milliseconds, and how far the time in an id may be off; then of each event its id, type, source, instance, JSON, the time in its
-- id in milliseconds (or nothing if there is none), what stands for its content, and the number of its stream.
-- Returns the entry of each; of one that was known, `=` and what stands for its content.
local prefix, window, kept, tolerance = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local now = redis.call('TIME')
local bucket = math.floor((now[1] * 1000 + math.floor(now[2] / 1000)) / window)
local current, before = prefix .. ':ids:' .. bucket, prefix .. ':ids:' .. (bucket - 1)
local has_before, answers = redis.call('EXISTS', before) == 1, {}
for i = 4, #ARGV, 8 do
    local id, at, content, number = ARGV[i], tonumber(ARGV[i + 5]), ARGV[i + 6], ARGV[i + 7]
    local known = redis.call('HGET', current, id) or (has_before and redis.call('HGET', before, id))
    if not known and not at then
        local index = redis.call('GET', prefix .. ':at:' .. id)
        known = index and string.match(index, '%S+$')
    end
    if known then
        answers[#answers + 1] = '=' .. known
    else
        local entry = redis.call('XADD', KEYS[number + 1], '*', 'event', ARGV[i + 4], 'id', id, 'type', ARGV[i + 1], 'source', ARGV[i + 2],
            'status', 'pending', 'instance_id', ARGV[i + 3])
        redis.call('HSET', current, id, content)
        if not at or math.abs(at - tonumber(string.match(entry, '%d+'))) > tolerance then
            redis.call('SET', prefix .. ':at:' .. id, number .. ' ' .. entry .. ' ' .. content, 'PX', kept)
        end
        answers[#answers + 1] = entry
    end
end
redis.call('PEXPIRE', current, 2 * window)
return answers
