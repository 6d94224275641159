-- Stores events whose ids are not known. KEYS: the stream. ARGV: the window in which an id is known and how long an index entry lasts, in
-- milliseconds, and how far the time in an id may be off; then of each event its id, type, source, instance, JSON, and the time in its id in
-- milliseconds, or nothing if there is none.
-- Returns the entry of each, with `=` before it if it was there before.
local stream, window, kept, tolerance = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local now = redis.call('TIME')
local bucket = math.floor((now[1] * 1000 + math.floor(now[2] / 1000)) / window)
local current, before = stream .. ':ids:' .. bucket, stream .. ':ids:' .. (bucket - 1)
local has_before, entries = redis.call('EXISTS', before) == 1, {}
for i = 4, #ARGV, 6 do
    local id, at = ARGV[i], tonumber(ARGV[i + 5])
    local known = (has_before and redis.call('HGET', before, id)) or redis.call('HGET', current, id)
        or (not at and redis.call('GET', stream .. ':at:' .. id))
    if known then
        entries[#entries + 1] = '=' .. known
    else
        local entry = redis.call('XADD', stream, '*', 'event', ARGV[i + 4], 'id', id, 'type', ARGV[i + 1], 'source', ARGV[i + 2],
            'status', 'pending', 'instance_id', ARGV[i + 3])
        redis.call('HSET', current, id, entry)
        if not at or math.abs(at - tonumber(string.match(entry, '%d+'))) > tolerance then
            redis.call('SET', stream .. ':at:' .. id, entry, 'PX', kept)
        end
        entries[#entries + 1] = entry
    end
end
redis.call('PEXPIRE', current, 2 * window)
return entries
