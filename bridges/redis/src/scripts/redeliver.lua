-- Delivers dead letters again. KEYS: the stream. ARGV: group, numbers. Returns those that were there.
local stream, group, done = KEYS[1], ARGV[1], {}
for i = 2, #ARGV do
    local letter = take(stream, group, ARGV[i])
    if letter then
        redis.call('XADD', stream .. ':again:' .. letter.unit, '*', 'event', letter.event, 'id', letter.id, 'requeues', letter.requeues + 1)
        redis.call('HDEL', stream .. ':status:' .. letter.id, 'dead:' .. letter.unit)
        redis.call('HSET', stream .. ':status:' .. letter.id, 'again:' .. letter.unit, '1')
        note_failed(stream, letter.id, false)
        done[#done + 1] = ARGV[i]
    end
end
if #done > 0 then ring(stream) end
return done
