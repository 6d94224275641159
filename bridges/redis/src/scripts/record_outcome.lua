-- Notes statuses that come from deliveries of where the events came from. KEYS: the stream. ARGV: how long that is kept in milliseconds; then
-- of each event its id, status, error, retries.
local stream = KEYS[1]
for i = 2, #ARGV, 4 do
    local id, status, error = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local key = stream .. ':status:' .. id
    redis.call('HDEL', key, 'local', 'error')
    if status ~= 'completed' then redis.call('HSET', key, 'local', status) end
    if status == 'failed' then redis.call('HSET', key, 'error', error) end
    if ARGV[i + 3] ~= '0' then redis.call('HSET', key, 'retries', ARGV[i + 3]) end
    note_failed(stream, id, status == 'failed')
    redis.call('PEXPIRE', key, ARGV[1])
end
