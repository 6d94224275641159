-- Notes that the call of a suspect begins (1) or has ended (0). KEYS: the stream. ARGV: member, unit, the key of its stream, entry, which.
-- Returns 0 if somebody else holds it.
local marks, place = KEYS[1] .. ':marks:' .. ARGV[2], ARGV[3] .. ' ' .. ARGV[4]
if holder(ARGV[3], ARGV[2], ARGV[4]) ~= ARGV[1] then return 0 end
if ARGV[5] == '1' then
    redis.call('HSET', marks, place, (redis.call('HGET', marks, place) or '0') .. '!')
else
    redis.call('HDEL', marks, place)
end
return 1
