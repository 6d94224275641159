-- Notes that the call of a suspect begins (1) or has ended (0). KEYS: the stream. ARGV: member, unit, the key of its stream, entry, which.
-- Returns 0 if somebody else holds it.
local marks, entry = KEYS[1] .. ':marks:' .. ARGV[2], ARGV[4]
if holder(ARGV[3], ARGV[2], entry) ~= ARGV[1] then return 0 end
if ARGV[5] == '1' then
    redis.call('HSET', marks, entry, (redis.call('HGET', marks, entry) or '0') .. '!')
else
    redis.call('HDEL', marks, entry)
end
return 1
