-- Makes a delivery a dead letter. KEYS: the stream. ARGV: member, unit, the key of its stream, entry, group, event id, error, how long
-- statuses last in milliseconds, the letter as JSON, retries, 1 if its entry was removed from the stream, 1 if its status is written
-- down. Returns 0 if somebody else holds it.
local stream, me, unit, key, entry, group, id = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
if ARGV[11] == '1' then
    if redis.call('HEXISTS', stream .. ':letters:at:' .. unit, id) == 1 then return 1 end
else
    local who = holder(key, unit, entry)
    if not who then return 1 end
    if who ~= me then return 0 end
end
take_out(stream, key, unit, entry)
local number = redis.call('INCR', stream .. ':letters:last')
redis.call('HSET', stream .. ':letters', number, ARGV[9])
redis.call('ZADD', stream .. ':letters:of:' .. group, number, number)
redis.call('HSET', stream .. ':letters:at:' .. unit, id, number)
local status = stream .. ':status:' .. id
redis.call('HDEL', status, 'again:' .. unit)
if ARGV[12] ~= '1' then return 1 end
redis.call('HSET', status, 'dead:' .. unit, ARGV[7])
note_failed(stream, id, true)
local retries = redis.call('HGET', status, 'retries')
if tonumber(ARGV[10]) > tonumber(retries or '0') then redis.call('HSET', status, 'retries', ARGV[10]) end
redis.call('PEXPIRE', status, ARGV[8])
return 1
