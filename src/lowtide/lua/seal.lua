-- Closes a lane's open buffer: its lines become those of a batch, by RENAME.
-- KEYS 1-5 see buffer.lua
-- ARGV 1-6 see buffer.lua  7 "1" to leave a buffer alone that is not due yet
-- Returns the batch's id, or nil when nothing waits or the buffer is not due
local b = load()
if not b then
  redis.call('DEL', HEAD)
  redis.call('ZREM', TIMERS, 'seal:' .. LANE)
  return false
end
if ARGV[7] == '1' and b.due > NOW then
  redis.call('ZADD', TIMERS, seconds(b.due), 'seal:' .. LANE)
  return false
end
return close(b)
