-- Puts requests into a lane's open buffer; seals it where a threshold would be passed or is reached.
-- KEYS 1-5 see buffer.lua  6… task HASH of each request
-- ARGV 1-6 see buffer.lua  7 max_requests  8 max_bytes  9 max_tokens
--      10… custom_id, line, deadline or "" of each request
-- Returns {added, refused, id of each batch that was sealed…}
local MOST, MOST_BYTES, MOST_TOKENS = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local b, touched, hurried = load(), false, false
local reply = { 0, 0 }

for i = 6, #KEYS do
  local at = 10 + (i - 6) * 3
  local id, line, deadline = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local field = string.match(id, '%d+%.%d+$') or id
  if redis.call('HEXISTS', KEYS[i], field) == 1 or redis.call('HEXISTS', LINES, id) == 1 then
    reply[2] = reply[2] + 1
  else
    local size, tokens = struct.unpack('>I4I4', line)
    if b and (b.requests >= MOST or b.bytes + size > MOST_BYTES
        or b.tokens + tokens > MOST_TOKENS) then
      reply[#reply + 1], b = close(b), nil
    end
    b = b or open()
    local name = KEYS[i] == PREFIX .. 'task:' .. string.sub(id, 1, -#field - 2) and '' or id
    redis.call('HSET', KEYS[i], field, b.batch .. ' ' .. b.requests .. ' ' .. name)
    redis.call('EXPIRE', KEYS[i], TTL)
    redis.call('HSET', LINES, id, line)
    b.requests, b.bytes, b.tokens = b.requests + 1, b.bytes + size, b.tokens + tokens
    reply[1], touched = reply[1] + 1, true
    if deadline and deadline < b.due then
      b.due, hurried = math.max(deadline, NOW), true
    end
    if b.requests >= MOST or b.bytes >= MOST_BYTES or b.tokens >= MOST_TOKENS then
      reply[#reply + 1], b = close(b), nil
    end
  end
end
if b and touched then
  save(b, hurried and 'LT' or 'NX')
end
return reply
