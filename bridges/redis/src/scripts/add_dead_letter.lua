-- Ends a delivery as a dead letter.
-- KEYS: the prefix, the streams.
-- ARGV: member, consumer group, the key of its stream, entry, group, event id, error, the lifetime of statuses in milliseconds, the letter
-- as JSON, retries, 1 if the entry was removed from the stream.
-- Returns: 0 if another member holds the delivery, else 1.
-- Touches: the entry, its mark, the last number of a letter, the letter, its two indices, the status of the event, the set of failed
-- events. Writes one event.
local prefix, me, xgroup, key, entry, group, id = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if ARGV[11] == '1' then
    if redis.call('HEXISTS', prefix .. ':letters:at:' .. xgroup, id) == 1 then return 1 end
else
    local result = check_holder(me, key, xgroup, entry)
    if result then return result end
end
end_delivery(prefix, key, xgroup, entry)
local number = redis.call('INCR', prefix .. ':letters:last')
redis.call('HSET', prefix .. ':letters', number, ARGV[9])
redis.call('ZADD', prefix .. ':letters:of:' .. group, number, number)
redis.call('HSET', prefix .. ':letters:at:' .. xgroup, id, number)
local status = prefix .. ':status:' .. id
redis.call('HDEL', status, 'again:' .. xgroup)
redis.call('HSET', status, 'dead:' .. xgroup, ARGV[7])
note_failed(prefix, id, true)
raise_retries(status, ARGV[10])
redis.call('PEXPIRE', status, ARGV[8])
return 1
