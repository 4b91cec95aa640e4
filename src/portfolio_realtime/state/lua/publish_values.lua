-- Store publications of shards and announce them to the servers that watch, in one step. A shard in which a newer
-- owner has written is left out.
-- KEYS: fence of each shard, then valuations of each, which is its channel of all servers, too, then changes of
-- interest of each. ARGV: PUBLISH or SPUBLISH, length of the streams of changes, 1 if the messages have been sent
-- already and else 0, then of each shard: token, id of the newest change of interest that the calculator knows,
-- number of messages, number of publications, server ('' for all) and message of each, account and publication of
-- each.
-- A server that has begun to watch since that change gets its publication as it is stored. If too much has
-- changed, every message goes to all servers.
-- Returns for each shard 0, or the newer token if refused. Fields are set 500 at a time, because Lua's unpack is
-- limited.
local word, changes_max, is_again, count = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', #KEYS / 3

local function publish_begun(changes, channel, first, last)
  local values, told = {}, {}
  for at = first, last, 2 do
    values[ARGV[at]] = ARGV[at + 1]
  end
  for _, entry in ipairs(changes) do
    for pair in string.gmatch(entry[2][2], '[^,]+') do
      local account, server = string.match(pair, '^(.*) ([^ ]+)$')
      if values[account] and not told[pair] then
        told[pair] = true
        redis.call(word, channel .. ':' .. server, values[account])
      end
    end
  end
end

local function publish(channel, stream, since, told, first, last)
  for at = first, last, 1000 do
    redis.call('HSET', channel, unpack(ARGV, at, math.min(at + 999, last)))
  end
  local changes = first <= last and redis.call('XRANGE', stream, '(' .. since, '+') or {}
  local is_missed = #changes >= changes_max
  for at = told, is_again and not is_missed and 0 or first - 1, 2 do
    local is_own = ARGV[at] ~= '' and not is_missed
    redis.call(word, is_own and channel .. ':' .. ARGV[at] or channel, ARGV[at + 1])
  end
  if #changes > 0 and not is_missed then
    publish_begun(changes, channel, first, last)
  end
end

local fences, refusals, at = redis.call('MGET', unpack(KEYS, 1, count)), {}, 4
for shard = 1, count do
  local fence, token = tonumber(fences[shard] or '0'), tonumber(ARGV[at])
  local told = at + 4
  local first = told + 2 * ARGV[at + 2]
  local next = first + 2 * ARGV[at + 3]
  if token < fence then
    refusals[shard] = fence
  else
    refusals[shard] = 0
    if token > fence then
      redis.call('SET', KEYS[shard], ARGV[at])
    end
    publish(KEYS[count + shard], KEYS[2 * count + shard], ARGV[at + 1], told, first, next - 1)
  end
  at = next
end
return refusals
