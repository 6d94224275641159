-- Takes a dead letter away. Returns it, or nothing if the group has none of that number.
local function take(stream, group, number)
    local text = redis.call('ZSCORE', stream .. ':letters:of:' .. group, number) and redis.call('HGET', stream .. ':letters', number)
    if not text then return end
    local letter = cjson.decode(text)
    redis.call('HDEL', stream .. ':letters', number)
    redis.call('ZREM', stream .. ':letters:of:' .. group, number)
    redis.call('HDEL', stream .. ':letters:at:' .. letter.unit, letter.id)
    return letter
end
