-- Delivers events again to one subscription unless their delivery is open. KEYS: the prefix, the stream that they are in. ARGV: group, unit, 1
-- if they are only counted; then of each event its entry, id, JSON. Returns how many.
local stream, group, unit, dry, count = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == '1', 0
for i = 4, #ARGV, 3 do
    local entry, id = ARGV[i], ARGV[i + 1]
    local status = stream .. ':status:' .. id
    if not holder(KEYS[2], unit, entry) and redis.call('HEXISTS', status, 'again:' .. unit) == 0 then
        count = count + 1
        if not dry then
            local number = redis.call('HGET', stream .. ':letters:at:' .. unit, id)
            local letter = number and take(stream, group, number)
            local requeues = letter and letter.requeues + 1 or 0
            redis.call('XADD', stream .. ':again:' .. unit, '*', 'event', ARGV[i + 2], 'id', id, 'requeues', requeues)
            redis.call('HDEL', status, 'dead:' .. unit)
            redis.call('HSET', status, 'again:' .. unit, '1')
            note_failed(stream, id, false)
        end
    end
end
if count > 0 and not dry then ring(stream) end
return count
