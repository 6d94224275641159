-- Removes consumers that are idle and hold nothing. The server would drop what a removed consumer holds.
-- KEYS: the prefix, the streams.
-- ARGV: the least idle time in milliseconds.
-- Returns: how many.
-- Touches: the consumers of each subscription and stream; no entry.
local count = 0
local function remove_idle(key, xgroup)
    local consumers = redis.pcall('XINFO', 'CONSUMERS', key, xgroup)
    if consumers.err then return end
    for _, reply in ipairs(consumers) do
        local consumer = fields(reply)
        if consumer.pending == 0 and consumer.idle > tonumber(ARGV[1]) then
            redis.call('XGROUP', 'DELCONSUMER', key, xgroup, consumer.name)
            count = count + 1
        end
    end
end
for _, xgroup in ipairs(redis.call('HKEYS', KEYS[1] .. ':subscriptions')) do
    for i = 2, #KEYS do remove_idle(KEYS[i], xgroup) end
    remove_idle(KEYS[1] .. ':again:' .. xgroup, xgroup)
end
return count
