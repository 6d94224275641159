-- Part of a script: turns deferred retries that are due into deliveries, the earliest of each subscription first.
-- Handles at most `most` retries, of the consumer groups that are the arguments from `first` on. Returns how many.
local function redeliver_due(prefix, most, first)
    local done, now = 0, string.format('%.0f', now_millis())
    for i = first, #ARGV do
        local later = prefix .. ':later:' .. ARGV[i]
        for _, text in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, most - done)) do
            -- A server with a full memory refuses a script that begins with a command that adds. This one removes first.
            redis.call('ZREM', later, text)
            local retry = parse_retry(text)
            if retry then
                redis.call('XADD', prefix .. ':again:' .. ARGV[i], '*', 'event', retry.event, 'id', retry.id, 'requeues', retry.requeues,
                    'attempts', retry.attempts, 'errors', retry.errors)
            end
            done = done + 1
        end
    end
    if done > 0 then notify(prefix) end
    return done
end
