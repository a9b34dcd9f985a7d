-- Prepended to the scripts of the open buffer. KEYS 1 lanes  2 sealed  3 timers  4 lane  5 lines
-- ARGV 1 now or ""  2 "{namespace}:"  3 lane key  4 nonce below 2^24  5 summary TTL s  6 max_wait s
-- A batch's keys are made from the prefix: its id is only known in here; all share one hash tag.
local LANES, SEALED, TIMERS, HEAD, LINES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local PREFIX, LANE, NONCE, TTL = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local function summarize(b, state)
  local key = PREFIX .. 'batch:' .. b.batch
  redis.call('HSET', key, 'lane', LANE, 'state', state)
  redis.call('EXPIRE', key, TTL)
  redis.call('SADD', LANES, LANE)
end

local function save(b, how)
  redis.call('HSET', HEAD, 'batch', b.batch, 'requests', b.requests, 'bytes', b.bytes, 'tokens',
    b.tokens, 'opened_at', seconds(b.opened_at), 'due', seconds(b.due))
  redis.call('SADD', LANES, LANE)
  redis.call('ZADD', TIMERS, how or 'NX', seconds(b.due), 'seal:' .. LANE)
end

local function open(id)
  NONCE = (NONCE + 1) % 16777216
  id = id or string.format('b%014x%06x', math.floor(NOW * 1000000), NONCE)
  local b = { batch = id, requests = 0, bytes = 0, tokens = 0, opened_at = NOW }
  b.due = NOW + tonumber(ARGV[6])
  summarize(b, 'BUFFERED')
  return b
end

local function close(b)
  redis.call('RENAME', LINES, PREFIX .. 'batch:' .. b.batch .. ':lines')
  redis.call('DEL', HEAD)
  redis.call('HSET', SEALED, b.batch, table.concat(
    { LANE, seconds(NOW), b.requests, b.bytes, b.tokens }, ' '))
  redis.call('ZREM', TIMERS, 'seal:' .. LANE)
  redis.call('ZADD', TIMERS, seconds(NOW), 'submit:' .. b.batch)
  summarize(b, 'SEALED')
  redis.call('HSET', PREFIX .. 'batch:' .. b.batch, 'requests', b.requests)
  return b.batch
end
