-- Part of a script: notifies all members, which wakes their readers. The notify stream has the key `bell`.
local function notify(prefix) redis.call('XADD', prefix .. ':bell', 'MAXLEN', 1, '*', 'x', '') end
