-- Stores results as Celery's Redis backend does, and tells those who wait for them.
-- KEYS: for each result its key, which is its channel, too
-- ARGV: for each result  1 TTL in s or 0  2 value
for number, key in ipairs(KEYS) do
  local ttl, value = ARGV[2 * number - 1], ARGV[2 * number]
  if ttl == '0' then
    redis.call('SET', key, value)
  else
    redis.call('SETEX', key, ttl, value)
  end
  redis.call('PUBLISH', key, value)
end
