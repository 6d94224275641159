-- Has a delivery that failed wait until its retry is due. KEYS: the stream. ARGV: member, unit, the key of its stream, entry, event id, the delay
-- in milliseconds, the retry as JSON, how long its status lasts at least in milliseconds, retries, 1 if its entry was removed from the stream, 1
-- if retries are written down. Returns 0 if somebody else holds it.
local stream, me, unit, key, entry, id = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if ARGV[10] == '1' then
    -- Nobody keeps what waits for a subscription that is not known.
    if redis.call('HEXISTS', stream .. ':subscriptions', unit) == 0 then
        if key ~= stream .. ':again:' .. unit then redis.call('HINCRBY', key .. ':lost', 'entries', 1) end
        return 1
    end
else
    local who = holder(key, unit, entry)
    if not who then return 1 end
    if who ~= me then return 0 end
end
take_out(stream, key, unit, entry)
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', stream .. ':later:' .. unit, string.format('%.0f', now + tonumber(ARGV[6])), ARGV[7])
local status = stream .. ':status:' .. id
redis.call('HSET', status, 'again:' .. unit, '1')
if ARGV[11] == '1' then
    local retries = redis.call('HGET', status, 'retries')
    if tonumber(ARGV[9]) > tonumber(retries or '0') then redis.call('HSET', status, 'retries', ARGV[9]) end
end
redis.call('PEXPIRE', status, ARGV[8], 'NX')
redis.call('PEXPIRE', status, ARGV[8], 'GT')
return 1
