-- Prepended to the scripts that repair. A line is 4 bytes size, 4 bytes tokens, then the blob.
-- count(lines) gives the bytes and tokens of a HASH of lines; in steps, as it may hold 100 MB.
local function count(lines)
  local bytes, tokens, cursor = 0, 0, '0'
  repeat
    local page = redis.call('HSCAN', lines, cursor, 'COUNT', 500)
    cursor = page[1]
    for i = 2, #page[2], 2 do
      local size, guess = struct.unpack('>I4I4', page[2][i])
      bytes, tokens = bytes + size, tokens + guess
    end
  until cursor == '0'
  return bytes, tokens
end
