-- Takes or renews the name of an instance, shows that its provider is alive, and extends its hold on partitions.
-- KEYS: the prefix, the streams.
-- ARGV: name (or nothing), boot id, the lease and the time that broadcast subscriptions outlive their provider, both in milliseconds; the
-- consumer groups that the provider serves.
-- Returns: 0 if another provider has the name, else 1.
-- Touches: two strings; of each consumer group a hash field and the hash of owners (at most 64 fields).
local prefix, name, boot = KEYS[1], ARGV[1], ARGV[2]
redis.call('SET', prefix .. ':boot:' .. boot, '1', 'PX', ARGV[4])
local now = now_millis()
for i = 5, #ARGV do
    redis.call('HSET', prefix .. ':used', ARGV[i], now)
    -- The hold on a partition lasts as long as the leases of its deliveries.
    local owners = redis.call('HGETALL', prefix .. ':owners:' .. ARGV[i])
    for j = 1, #owners, 2 do
        if string.match(owners[j + 1], '%S+') == boot then
            redis.call('HSET', prefix .. ':owners:' .. ARGV[i], owners[j], boot .. ' ' .. string.format('%.0f', now + ARGV[3]))
        end
    end
end
if name == '' then return 1 end
local key = prefix .. ':instance:' .. name
local holder = redis.call('GET', key)
if holder and holder ~= boot then return 0 end
redis.call('SET', key, boot, 'PX', ARGV[3])
return 1
