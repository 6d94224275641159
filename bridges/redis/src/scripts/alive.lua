-- Takes or keeps the name of an instance, and shows that a boot is alive. KEYS: the stream. ARGV: name (or nothing), boot, the lease and how
-- long its broadcast subscriptions outlive it, in milliseconds; units that it serves. Returns 0 if somebody else has the name.
local stream, name, boot = KEYS[1], ARGV[1], ARGV[2]
redis.call('SET', stream .. ':boot:' .. boot, '1', 'PX', ARGV[4])
local now = redis.call('TIME')
for i = 5, #ARGV do redis.call('HSET', stream .. ':used', ARGV[i], now[1] * 1000 + math.floor(now[2] / 1000)) end
if name == '' then return 1 end
local key = stream .. ':instance:' .. name
local holder = redis.call('GET', key)
if holder and holder ~= boot then return 0 end
redis.call('SET', key, boot, 'PX', ARGV[3])
return 1
