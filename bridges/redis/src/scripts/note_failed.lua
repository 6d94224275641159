-- Which events have failed: those with a dead delivery, here or where they came from.
local function note_failed(stream, id, failed)
    if failed then
        redis.call('ZADD', stream .. ':failed', redis.call('TIME')[1], id)
        return
    end
    for _, field in ipairs(redis.call('HKEYS', stream .. ':status:' .. id)) do
        if string.sub(field, 1, 5) == 'dead:' or field == 'error' then return end
    end
    redis.call('ZREM', stream .. ':failed', id)
end
