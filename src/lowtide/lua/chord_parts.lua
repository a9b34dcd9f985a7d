-- Adds parts to Celery chords, none of them a chord's last, as Celery's own script does, without
-- counting: the last part of a slice goes through Celery's script, which counts.
-- KEYS: for each part  1 parts (.j)  2 parts seen (.d)  3 claim of the body (.c)
-- ARGV: for each part  1 "task id:index"  2 encoded part  3 "1" when parts are ordered  4 index
--       5 TTL in s or 0
-- Returns of each part that Redis refused: 1 its number, from 0  2 why. The others are added.
-- A part that is known already, or whose chord is done, is left out.
local refused = {}
for part = 0, #KEYS / 3 - 1 do
  local parts, seen, claim = KEYS[3 * part + 1], KEYS[3 * part + 2], KEYS[3 * part + 3]
  local member, encoded, ordered, index, ttl = unpack(ARGV, 5 * part + 1, 5 * part + 5)
  local added = redis.pcall('GET', claim) ~= 'done' and redis.pcall('SADD', seen, member)
  if added == 1 then
    if ordered == '1' then
      added = redis.pcall('ZADD', parts, index, encoded)
    else
      added = redis.pcall('RPUSH', parts, encoded)
    end
    if type(added) == 'table' then
      redis.call('SREM', seen, member)
    elseif tonumber(ttl) > 0 then
      redis.call('EXPIRE', parts, ttl)
      redis.call('EXPIRE', seen, ttl)
    end
  end
  if type(added) == 'table' then
    table.insert(refused, part)
    table.insert(refused, added.err)
  end
end
return refused
