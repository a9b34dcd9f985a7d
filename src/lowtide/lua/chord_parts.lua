-- Adds parts to Celery chords, none of them a chord's last, as Celery's own script does, without
-- counting: the last part of a slice goes through Celery's script, which counts.
-- KEYS: for each part  1 parts (.j)  2 parts seen (.d)  3 claim of the body (.c)
-- ARGV: for each part  1 "task id:index"  2 encoded part  3 "1" when parts are ordered  4 index
--       5 TTL in s or 0
-- Returns of each part that Redis refused: 1 its number, from 0  2 why. The others are added.
-- A part that is known already, or whose chord is done, is left out.
local function add(parts, seen, claim, member, encoded, ordered, index, ttl)
  if redis.call('GET', claim) == 'done' or redis.call('SADD', seen, member) == 0 then
    return
  end
  local order = ordered == '1' and {'ZADD', parts, index, encoded} or {'RPUSH', parts, encoded}
  local added = redis.pcall(unpack(order))
  if type(added) == 'table' then
    redis.call('SREM', seen, member)
    error(added)
  end
  if tonumber(ttl) > 0 then
    redis.call('EXPIRE', parts, ttl)
    redis.call('EXPIRE', seen, ttl)
  end
end

local refused = {}
for part = 0, #KEYS / 3 - 1 do
  local parts, seen, claim = KEYS[3 * part + 1], KEYS[3 * part + 2], KEYS[3 * part + 3]
  local added, problem = pcall(add, parts, seen, claim, unpack(ARGV, 5 * part + 1, 5 * part + 5))
  if not added then
    table.insert(refused, part)
    table.insert(refused, type(problem) == 'table' and problem.err or problem)
  end
end
return refused
