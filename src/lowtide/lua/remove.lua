-- Takes requests out of a lane's open buffer; their task entries stay and refuse a second append.
-- KEYS 1-5 see buffer.lua
-- ARGV 1-6 see buffer.lua  7… custom_ids
-- Returns the custom_ids that were there
local removed, b = {}, load()
if not b then
  return removed
end
for i = 7, #ARGV do
  local line = redis.call('HGET', LINES, ARGV[i])
  if line then
    local size, tokens = struct.unpack('>I4I4', line)
    redis.call('HDEL', LINES, ARGV[i])
    b.requests, b.bytes, b.tokens = b.requests - 1, b.bytes - size, b.tokens - tokens
    removed[#removed + 1] = ARGV[i]
  end
end
if b.requests > 0 then
  save(b)
else
  redis.call('DEL', HEAD, PREFIX .. 'batch:' .. b.batch)
  redis.call('ZREM', TIMERS, 'seal:' .. LANE)
end
return removed
