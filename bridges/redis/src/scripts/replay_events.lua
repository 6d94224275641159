-- Replays events to one subscription, except those whose delivery is open.
-- KEYS: the prefix, the stream of the events.
-- ARGV: group, consumer group, 1 to count only; then of each event its entry, id, JSON.
-- Returns: how many.
-- Touches: of each event its pending entry, status, dead letter and the redelivery stream; the set of failed events, the notify stream.
-- Writes each event once.
local prefix, group, xgroup, is_dry, count = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == '1', 0
for i = 4, #ARGV, 3 do
    local entry, id = ARGV[i], ARGV[i + 1]
    local status = prefix .. ':status:' .. id
    if not holder_of(KEYS[2], xgroup, entry) and redis.call('HEXISTS', status, 'again:' .. xgroup) == 0 then
        count = count + 1
        if not is_dry then
            local number = redis.call('HGET', prefix .. ':letters:at:' .. xgroup, id)
            local letter = number and take_dead_letter(prefix, group, number)
            local requeues = letter and letter.requeues + 1 or 0
            redis.call('XADD', prefix .. ':again:' .. xgroup, '*', 'event', ARGV[i + 2], 'id', id, 'requeues', requeues)
            redis.call('HDEL', status, 'dead:' .. xgroup)
            redis.call('HSET', status, 'again:' .. xgroup, '1')
            note_failed(prefix, id, false)
        end
    end
end
if count > 0 and not is_dry then notify(prefix) end
return count
