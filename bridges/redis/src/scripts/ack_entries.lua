-- Ends deliveries of a stream. KEYS: that stream. ARGV: unit, entries. Returns how many were open.
local count = redis.call('XACK', KEYS[1], unpack(ARGV))
if count > 0 then redis.call('HINCRBY', KEYS[1] .. ':ended', ARGV[1], count) end
return count
