-- Counts the deliveries that wait: unread, pending, redeliveries and deferred retries.
-- KEYS: the prefix, the streams.
-- ARGV: none.
-- Returns: a number that is 0 only if none waits; of the unread entries of each stream and subscription it counts at most 1,000.
-- Touches: the figures of each stream, of each redelivery stream and of each set of retries; of each of these streams at most 1,000 entries
-- per subscription, with their events.
local count = 0
local function add(key)
    for _, group in ipairs(groups_of(key)) do
        if redis.call('HEXISTS', KEYS[1] .. ':subscriptions', group.name) == 1 then
            count = count + group.pending + #redis.call('XRANGE', key, '(' .. group['last-delivered-id'], '+', 'COUNT', 1000)
        end
    end
end
for i = 2, #KEYS do add(KEYS[i]) end
for _, xgroup in ipairs(redis.call('HKEYS', KEYS[1] .. ':subscriptions')) do
    add(KEYS[1] .. ':again:' .. xgroup)
    count = count + redis.call('ZCARD', KEYS[1] .. ':later:' .. xgroup)
end
return count
