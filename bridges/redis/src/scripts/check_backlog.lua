-- The chores of every second, in one round trip: measures the backlog, and turns retries that are due into deliveries.
-- KEYS: the prefix, the streams.
-- ARGV: 1 to measure the backlog; the most retries to handle; the consumer groups that they are of.
-- Returns: the largest backlog of a subscription (0 if it was not measured); how many retries were handled.
-- Touches: the figures of each stream, of each redelivery stream and of each set of retries, the notify stream; reads and writes at most as
-- many events as the second argument says.
return { ARGV[1] == '1' and backlog_size(KEYS[1]) or 0, redeliver_due(KEYS[1], tonumber(ARGV[2]), 3) }
