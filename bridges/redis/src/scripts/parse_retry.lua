-- Part of a script: a deferred retry as it was stored; nothing if another client has written the text.
local function parse_retry(text)
    local is_json, retry = pcall(cjson.decode, text)
    if not is_json or type(retry) ~= 'table' then return end
    return retry.event and retry.id and retry.requeues and retry.attempts and retry.errors and retry
end
