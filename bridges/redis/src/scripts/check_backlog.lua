-- What is seen to once a second, in one round trip. KEYS: the prefix, the streams. ARGV: 1 if it is measured how far the subscription is behind that
-- is furthest; how many retries that are due are made deliveries again at most; the units that they are of. Returns how far, and how many.
return { ARGV[1] == '1' and furthest_behind() or 0, bring_back(KEYS[1], tonumber(ARGV[2]), 3) }
