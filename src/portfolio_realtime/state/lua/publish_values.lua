-- Store publications of a shard and announce them to the servers that watch, in one step, unless a newer owner
-- has written here.
-- KEYS: fence, valuations, changes of interest. ARGV: token, PUBLISH or SPUBLISH, channel of all servers, id of
-- the newest change of interest that the calculator knows, length of the stream of changes, number of messages,
-- server ('' for all) and message of each, then account and publication of each.
-- A server that has begun to watch since that change gets its publication as it is stored. If too much has
-- changed, every message goes to all servers.
-- Returns 0, or the newer token if refused. Fields are set 500 at a time, because Lua's unpack is limited.
local fence = tonumber(redis.call('GET', KEYS[1]) or '0')
if tonumber(ARGV[1]) < fence then
  return fence
end
redis.call('SET', KEYS[1], ARGV[1])
local first = 7 + 2 * tonumber(ARGV[6])
for at = first, #ARGV, 1000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, at, math.min(at + 999, #ARGV)))
end
local changes = first <= #ARGV and redis.call('XRANGE', KEYS[3], '(' .. ARGV[4], '+') or {}
local is_missed = #changes >= tonumber(ARGV[5])
for at = 7, first - 1, 2 do
  local is_own = ARGV[at] ~= '' and not is_missed
  redis.call(ARGV[2], is_own and ARGV[3] .. ':' .. ARGV[at] or ARGV[3], ARGV[at + 1])
end
if #changes == 0 or is_missed then
  return 0
end
local values, told = {}, {}
for at = first, #ARGV, 2 do
  values[ARGV[at]] = ARGV[at + 1]
end
for _, entry in ipairs(changes) do
  for pair in string.gmatch(entry[2][2], '[^,]+') do
    local account, server = string.match(pair, '^(.*) ([^ ]+)$')
    if values[account] and not told[pair] then
      told[pair] = true
      redis.call(ARGV[2], ARGV[3] .. ':' .. server, values[account])
    end
  end
end
return 0
