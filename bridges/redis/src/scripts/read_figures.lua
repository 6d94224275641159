-- Part of a script: the server's own figures.
local function fields(reply)
    local figures = {}
    for i = 1, #reply, 2 do figures[reply[i]] = reply[i + 1] end
    return figures
end
-- The consumer groups of a stream; none if there is no stream.
local function groups_of(stream)
    local groups = {}
    if redis.call('EXISTS', stream) == 1 then
        for i, reply in ipairs(redis.call('XINFO', 'GROUPS', stream)) do groups[i] = fields(reply) end
    end
    return groups
end
-- Distinguishes the server from one that was started again or took over; nothing without the right to ask.
local function run_id()
    local info = redis.pcall('INFO', 'server')
    return type(info) == 'string' and string.match(info, 'run_id:(%w+)')
end
