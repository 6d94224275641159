-- Requeues dead letters: each becomes a new delivery, and its dead letter goes.
-- KEYS: the prefix, the streams.
-- ARGV: group, numbers of dead letters.
-- Returns: the numbers of those that were there.
-- Touches: of each letter its hash field, two indices, the status of its event and the redelivery stream; the set of failed events, the
-- notify stream. Reads and writes each event once.
local prefix, group, done = KEYS[1], ARGV[1], {}
for i = 2, #ARGV do
    local letter = take_dead_letter(prefix, group, ARGV[i])
    if letter then
        local status = prefix .. ':status:' .. letter.id
        redis.call('XADD', prefix .. ':again:' .. letter.unit, '*', 'event', letter.event, 'id', letter.id, 'requeues', letter.requeues + 1)
        redis.call('HDEL', status, 'dead:' .. letter.unit)
        redis.call('HSET', status, 'again:' .. letter.unit, '1')
        note_failed(prefix, letter.id, false)
        done[#done + 1] = ARGV[i]
    end
end
if #done > 0 then notify(prefix) end
return done
