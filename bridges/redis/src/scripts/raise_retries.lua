-- Part of a script: raises the number of retries in the status of an event.
local function raise_retries(status, retries)
    if tonumber(retries) > tonumber(redis.call('HGET', status, 'retries') or '0') then redis.call('HSET', status, 'retries', retries) end
end
