-- Read which accounts which servers watch in a shard, as pairs 'ACCOUNT SERVER': what has changed since an entry
-- of the stream of changes, or all pairs if that entry is not in it any more or if there is no stream: it may have
-- been evicted with changes in it. Expired interest is removed first, which is a change, too.
-- KEYS: interest, interest in positions, changes. ARGV: id of the newest entry that was read ('' for none),
-- length of the stream, pairs in one entry at most.
-- Returns the id of the newest entry, whether all pairs follow, the watched pairs, those of them with positions,
-- and the pairs that have ended.
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local ids_max = tonumber(ARGV[3])
for index = 1, 2 do
  local ended = redis.call('ZRANGEBYSCORE', KEYS[index], '-inf', now_ms)
  if #ended > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[index], '-inf', now_ms)
  end
  for first = 1, #ended, ids_max do
    local ids = table.concat(ended, ',', first, math.min(first + ids_max - 1, #ended))
    redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[2], '*', 'ids', ids)
  end
end
local newest = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
local until_id = newest[1] and newest[1][1] or '0-0'
if newest[1] and ARGV[1] == until_id then
  return {until_id, 0, {}, {}, {}}
end
local entries = ARGV[1] ~= '' and redis.call('XRANGE', KEYS[3], ARGV[1], '+') or {}
if not entries[1] or entries[1][1] ~= ARGV[1] then
  return {until_id, 1, redis.call('ZRANGE', KEYS[1], 0, -1), redis.call('ZRANGE', KEYS[2], 0, -1), {}}
end
local seen, watched, with_positions, ended = {}, {}, {}, {}
for index = 2, #entries do
  for id in string.gmatch(entries[index][2][2], '[^,]+') do
    if not seen[id] then
      seen[id] = true
      local is_watched = redis.call('ZSCORE', KEYS[1], id)
      table.insert(is_watched and watched or ended, id)
      if is_watched and redis.call('ZSCORE', KEYS[2], id) then
        table.insert(with_positions, id)
      end
    end
  end
end
return {until_id, 0, watched, with_positions, ended}
