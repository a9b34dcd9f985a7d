-- Prepended to every script. ARGV[1]: seconds since the epoch, or "" for the server's own time.
-- NOW is the time of the whole script; seconds(t) writes a time as Redis stores it.
local NOW = tonumber(ARGV[1])
if not NOW then
  local time = redis.call('TIME')
  NOW = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function seconds(t)
  return string.format('%.6f', t)
end
