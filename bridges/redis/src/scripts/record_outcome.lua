-- Records the statuses of events that their own instance has delivered.
-- KEYS: the prefix, the streams.
-- ARGV: the lifetime of statuses in milliseconds; then of each event its id, status, error, retries.
-- Returns: nothing.
-- Touches: of each event its status hash and the set of failed events.
local prefix = KEYS[1]
for i = 2, #ARGV, 4 do
    local id, status, error = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local key = prefix .. ':status:' .. id
    redis.call('HDEL', key, 'local', 'error')
    if status ~= 'completed' then redis.call('HSET', key, 'local', status) end
    if status == 'failed' then redis.call('HSET', key, 'error', error) end
    if ARGV[i + 3] ~= '0' then redis.call('HSET', key, 'retries', ARGV[i + 3]) end
    note_failed(prefix, id, status == 'failed')
    redis.call('PEXPIRE', key, ARGV[1])
end
