-- Adds one part to a Celery chord that is not its last, as Celery's own script does, without
-- counting: the last part of a slice goes through Celery's script, which counts.
-- KEYS: 1 parts (.j)  2 parts seen (.d)  3 claim of the body (.c)
-- ARGV: 1 "task id:index"  2 encoded part  3 "1" when parts are ordered  4 index  5 TTL in s or 0
-- Returns: 1 added, 0 known already or the chord is done
if redis.call('GET', KEYS[3]) == 'done' or redis.call('SADD', KEYS[2], ARGV[1]) == 0 then
  return 0
end
if ARGV[3] == '1' then
  redis.call('ZADD', KEYS[1], ARGV[4], ARGV[2])
else
  redis.call('RPUSH', KEYS[1], ARGV[2])
end
if tonumber(ARGV[5]) > 0 then
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
return 1
