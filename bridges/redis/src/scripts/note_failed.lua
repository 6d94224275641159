-- Part of a script: the set of failed events has those with a dead letter, or with a failed delivery of their own instance.
local function note_failed(prefix, id, failed)
    if failed then
        redis.call('ZADD', prefix .. ':failed', redis.call('TIME')[1], id)
        return
    end
    for _, field in ipairs(redis.call('HKEYS', prefix .. ':status:' .. id)) do
        if string.sub(field, 1, 5) == 'dead:' or field == 'error' then return end
    end
    redis.call('ZREM', prefix .. ':failed', id)
end
