-- Makes index and timer of a sealed batch agree with its lines again.
-- KEYS 1 sealed  2 timers  3 lanes  4 summary of the batch  5 lines of the batch
-- ARGV 1 now or ""  2 batch id
-- Returns how much was missing: 0, or 1 for each of timer, index; -1 when its lines are gone; -2
-- when its lane is not known any more, so that it stays as it is
local ID = ARGV[2]
local entry, lines = redis.call('HGET', KEYS[1], ID), redis.call('HLEN', KEYS[5])
if not entry and lines == 0 then
  return 0
end
local missing = 0
if not entry then
  local lane = redis.call('HGET', KEYS[4], 'lane')
  if not lane then
    return -2
  end
  local bytes, tokens = count(KEYS[5])
  redis.call('HSET', KEYS[1], ID, table.concat({ lane, seconds(NOW), lines, bytes, tokens }, ' '))
  redis.call('SADD', KEYS[3], lane)
  missing = 1
end
missing = missing + redis.call('ZADD', KEYS[2], 'NX', seconds(NOW), 'submit:' .. ID)
return lines == 0 and -1 or missing
