-- Takes or keeps the name of an instance, and shows that a boot is alive. KEYS: the stream. ARGV: name (or nothing), boot, the lease and how
-- long its broadcast subscriptions outlive it, in milliseconds; units that it serves. Returns 0 if somebody else has the name.
local stream, name, boot = KEYS[1], ARGV[1], ARGV[2]
redis.call('SET', stream .. ':boot:' .. boot, '1', 'PX', ARGV[4])
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
for i = 5, #ARGV do
    redis.call('HSET', stream .. ':used', ARGV[i], now)
    -- What it owns it keeps as long as what it has in its hands.
    local owners = redis.call('HGETALL', stream .. ':owners:' .. ARGV[i])
    for j = 1, #owners, 2 do
        if string.match(owners[j + 1], '%S+') == boot then
            redis.call('HSET', stream .. ':owners:' .. ARGV[i], owners[j], boot .. ' ' .. string.format('%.0f', now + ARGV[3]))
        end
    end
end
if name == '' then return 1 end
local key = stream .. ':instance:' .. name
local holder = redis.call('GET', key)
if holder and holder ~= boot then return 0 end
redis.call('SET', key, boot, 'PX', ARGV[3])
return 1
