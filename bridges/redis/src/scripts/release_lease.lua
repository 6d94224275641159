-- Gives back what was read beyond the room that there is. KEYS: the stream. ARGV: unit, entries.
local ids = {}
for i = 2, #ARGV do ids[#ids + 1] = ARGV[i] end
ids[#ids + 1] = 'JUSTID'
redis.call('XCLAIM', KEYS[1], ARGV[1], '~', 0, unpack(ids))
redis.call('HINCRBY', KEYS[1] .. ':given', ARGV[1], #ARGV - 1)
return 0
