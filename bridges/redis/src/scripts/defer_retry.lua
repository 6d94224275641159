-- Ends a delivery that failed, and stores its retry until it is due.
-- KEYS: the prefix, the streams.
-- ARGV: member, consumer group, the key of its stream, entry, event id, the delay in milliseconds, the retry as JSON, the least lifetime of
-- its status in milliseconds, retries, 1 if the entry was removed from the stream.
-- Returns: 0 if another member holds the delivery, else 1.
-- Touches: the entry, its mark, the set of retries, the status of the event; if the entry was removed, the subscription's record and the
-- count of lost entries. Writes one event.
local prefix, me, xgroup, key, entry, id = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if ARGV[10] == '1' then
    -- Without its subscription, nothing would ever remove the retry.
    if redis.call('HEXISTS', prefix .. ':subscriptions', xgroup) == 0 then
        if key ~= prefix .. ':again:' .. xgroup then redis.call('HINCRBY', key .. ':lost', 'entries', 1) end
        return 1
    end
else
    local result = check_holder(me, key, xgroup, entry)
    if result then return result end
end
end_delivery(prefix, key, xgroup, entry)
redis.call('ZADD', prefix .. ':later:' .. xgroup, string.format('%.0f', now_millis() + tonumber(ARGV[6])), ARGV[7])
local status = prefix .. ':status:' .. id
redis.call('HSET', status, 'again:' .. xgroup, '1')
raise_retries(status, ARGV[9])
redis.call('PEXPIRE', status, ARGV[8], 'NX')
redis.call('PEXPIRE', status, ARGV[8], 'GT')
return 1
