-- Makes header, lane index and timer of a lane agree with its lines again.
-- KEYS 1-5 see buffer.lua
-- ARGV 1-6 see buffer.lua
-- Returns how much was missing: 0, or 1 for each of timer, lane index, counts
local known = redis.call('SISMEMBER', LANES, LANE)
local timed = redis.call('ZSCORE', TIMERS, 'seal:' .. LANE)
local b, counted = load()
if not b then
  return redis.call('DEL', HEAD)
end
save(b)
return (timed and 0 or 1) + (1 - known) + (counted and 1 or 0)
