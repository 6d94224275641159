-- Notes that the call of a suspect begins or has ended.
-- KEYS: the prefix, the streams.
-- ARGV: member, consumer group, the key of its stream, entry, 1 if the call begins or 0 if it has ended.
-- Returns: 0 if another member holds the delivery or it is settled, else 1.
-- Touches: one pending entry, one hash field.
local marks, field = KEYS[1] .. ':marks:' .. ARGV[2], ARGV[3] .. ' ' .. ARGV[4]
if holder_of(ARGV[3], ARGV[2], ARGV[4]) ~= ARGV[1] then return 0 end
if ARGV[5] == '1' then
    redis.call('HSET', marks, field, (redis.call('HGET', marks, field) or '0') .. '!')
else
    redis.call('HDEL', marks, field)
end
return 1
