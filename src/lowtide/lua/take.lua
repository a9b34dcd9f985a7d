-- Takes the next messages of a broker's queues, and notes in the same step that they are on their way.
-- KEYS 1 unacked (HASH)  2 unacked_index (ZSET)  3… queues, those to be asked first in front
-- ARGV 1 now in s  2 a digit for each queue: 1 if its messages are acknowledged  3 most to take
-- Returns {which queue, counted from 0, message, its tag if it was noted or ""; and so on}
-- What is not noted could not be given back: it is the last that is taken.
local function known(message)
  local about = cjson.decode(message).properties
  local where = about.delivery_info
  -- What is no text raises here.
  local place = cjson.encode(where.exchange .. '') .. ',' .. cjson.encode(where.routing_key .. '')
  return about.delivery_tag .. '', place
end
local found, most = {}, tonumber(ARGV[3])
for i = 3, #KEYS do
  local message = most > 0 and redis.call('LINDEX', KEYS[i], -1)
  while message do
    -- Anybody may write here: what is no message is given out, too, to be out of the way.
    local readable, tag, place = pcall(known, message)
    if readable and string.sub(ARGV[2], i - 2, i - 2) == '1' then
      redis.call('ZADD', KEYS[2], ARGV[1], tag)
      redis.call('HSET', KEYS[1], tag, '[' .. message .. ',' .. place .. ']')
    else
      tag = ''
    end
    redis.call('RPOP', KEYS[i])
    local at = #found
    found[at + 1], found[at + 2], found[at + 3] = i - 3, message, tag
    most = tag ~= '' and most - 1 or 0
    message = most > 0 and redis.call('LINDEX', KEYS[i], -1)
  end
end
return found
