-- Say which versions of the wire a process reads and which one it writes, and read what the others said.
-- KEYS: hash. ARGV: process, ms until its entry expires, oldest and newest version that it reads, version that it
-- writes. Returns an array for each process with an entry: its name, then these three numbers.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %s %s %.0f', ARGV[3], ARGV[4], ARGV[5], now_ms + ARGV[2]))
local entries = redis.call('HGETALL', KEYS[1])
local living = {}
for index = 1, #entries, 2 do
  local oldest, newest, writes, expiry_ms = string.match(entries[index + 1], '^(%d+) (%d+) (%d+) (%d+)$')
  if oldest and tonumber(expiry_ms) > now_ms then
    living[#living + 1] = {entries[index], tonumber(oldest), tonumber(newest), tonumber(writes)}
  else
    redis.call('HDEL', KEYS[1], entries[index])
  end
end
return living
