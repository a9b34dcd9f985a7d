-- Prepended to the scripts of the open buffer, after buffer.lua and count.lua.
-- load() gives the open buffer, or nil when no line waits, and whether it had to be counted again.
-- Where header and lines disagree, as after the loss of one of them, the lines are right: they are
-- counted, and a header that is gone is made new.
local function load()
  local h = redis.call('HMGET', HEAD, 'batch', 'requests', 'bytes', 'tokens', 'opened_at', 'due')
  local waiting = redis.call('HLEN', LINES)
  if waiting == 0 then
    return nil, false
  end
  local b = { batch = h[1], requests = tonumber(h[2]), bytes = tonumber(h[3]),
    tokens = tonumber(h[4]), opened_at = tonumber(h[5]), due = tonumber(h[6]) }
  if b.batch and b.requests == waiting and b.bytes and b.tokens and b.opened_at and b.due then
    return b, false
  end
  local counted = open(b.batch)
  counted.due = b.due or tonumber(redis.call('ZSCORE', TIMERS, 'seal:' .. LANE) or NOW)
  counted.requests = waiting
  counted.bytes, counted.tokens = count(LINES)
  save(counted)
  return counted, true
end
