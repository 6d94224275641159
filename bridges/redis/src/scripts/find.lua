-- The entry of an event. KEYS: the stream. ARGV: id, the window in which ids are known in milliseconds, and from when to when its entry may
-- have been made, or nothing if its id does not tell. Returns the entry and the event.
local stream, id, window = KEYS[1], ARGV[1], tonumber(ARGV[2])
local now = redis.call('TIME')
local bucket = math.floor((now[1] * 1000 + math.floor(now[2] / 1000)) / window)
local entry = redis.call('HGET', stream .. ':ids:' .. bucket, id) or redis.call('HGET', stream .. ':ids:' .. (bucket - 1), id)
    or redis.call('GET', stream .. ':at:' .. id)
local function event(found)
    for i = 1, #found[2], 2 do
        if found[2][i] == 'event' then return found[2][i + 1] end
    end
end
if entry then
    local found = redis.call('XRANGE', stream, entry, entry)[1]
    return found and { entry, event(found) }
end
local from = ARGV[3]
while from do
    local found = redis.call('XRANGE', stream, from, ARGV[4], 'COUNT', 500)
    for _, it in ipairs(found) do
        for i = 1, #it[2], 2 do
            if it[2][i] == 'id' and it[2][i + 1] == id then return { it[1], event(it) } end
        end
    end
    from = #found == 500 and '(' .. found[500][1]
end
return false
