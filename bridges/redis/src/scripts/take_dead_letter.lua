-- Part of a script: removes a dead letter and returns it; nothing if the group has none of that number.
local function take_dead_letter(prefix, group, number)
    local text = redis.call('ZSCORE', prefix .. ':letters:of:' .. group, number) and redis.call('HGET', prefix .. ':letters', number)
    if not text then return end
    local letter = cjson.decode(text)
    redis.call('HDEL', prefix .. ':letters', number)
    redis.call('ZREM', prefix .. ':letters:of:' .. group, number)
    redis.call('HDEL', prefix .. ':letters:at:' .. letter.unit, letter.id)
    return letter
end
