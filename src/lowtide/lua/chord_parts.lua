-- Adds parts to Celery chords, none of them a chord's last, as Celery's own script does, without
-- counting: the last part of a slice goes through Celery's script, which counts.
-- KEYS: for each part  1 parts (.j)  2 parts seen (.d)  3 claim of the body (.c)
-- ARGV: for each part  1 "task id:index"  2 encoded part  3 "1" when parts are ordered  4 index
--       5 TTL in s or 0
-- A part that is known already, or whose chord is done, is left out.
for part = 0, #KEYS / 3 - 1 do
  local parts, seen, claim = KEYS[3 * part + 1], KEYS[3 * part + 2], KEYS[3 * part + 3]
  local member, encoded, ordered, index, ttl = unpack(ARGV, 5 * part + 1, 5 * part + 5)
  if redis.call('GET', claim) ~= 'done' and redis.call('SADD', seen, member) == 1 then
    if ordered == '1' then
      redis.call('ZADD', parts, index, encoded)
    else
      redis.call('RPUSH', parts, encoded)
    end
    if tonumber(ttl) > 0 then
      redis.call('EXPIRE', parts, ttl)
      redis.call('EXPIRE', seen, ttl)
    end
  end
end
