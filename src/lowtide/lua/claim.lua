-- Takes due timers for one lease: each is due again when the lease has run out.
-- KEYS 1 timers
-- ARGV 1 now or ""  2 most to take  3 lease in s
-- The member is removed and put back: a Redis that is full refuses a script whose first write may
-- take memory, and then nothing would ever be sent on that frees it.
-- Returns {member, due time, member, due time…}, longest due first
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', seconds(NOW), 'WITHSCORES',
  'LIMIT', 0, ARGV[2])
for i = 1, #due, 2 do
  redis.call('ZREM', KEYS[1], due[i])
  redis.call('ZADD', KEYS[1], seconds(NOW + tonumber(ARGV[3])), due[i])
end
return due
