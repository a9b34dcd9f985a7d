-- Takes the next message of a broker's queues, and notes in the same step that it is on its way.
-- KEYS 1 unacked (HASH)  2 unacked_index (ZSET)  3… queues, those to be asked first in front
-- ARGV 1 now in s  2 a digit for each queue: 1 if its messages are acknowledged
-- Returns {which queue, counted from 0, message}, or nil when all are empty
for i = 3, #KEYS do
  local message = redis.call('LINDEX', KEYS[i], -1)
  if message then
    local readable, known = pcall(cjson.decode, message)
    if readable and string.sub(ARGV[2], i - 2, i - 2) == '1' then
      local about = known.properties
      local where = about.delivery_info
      redis.call('ZADD', KEYS[2], ARGV[1], about.delivery_tag)
      redis.call('HSET', KEYS[1], about.delivery_tag, '[' .. message .. ','
        .. cjson.encode(where.exchange) .. ',' .. cjson.encode(where.routing_key) .. ']')
    end
    redis.call('RPOP', KEYS[i])
    return { i - 3, message }
  end
end
return nil
