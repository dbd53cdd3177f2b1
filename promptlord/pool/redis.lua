-- Compares and sets a state in parts, whose policy is none of this script's business.
--
-- KEYS: the parts by name, with what is known of them all; their names by the version in which each last changed;
--       then clients who call, each the beginning of a key for each limit.
-- ARGV: the caller's name, the microseconds of the lease that it gets if it is refused, the seconds after which all is
--       forgotten; the version that it knows, the number of parts that it writes, of each its name and its text, empty
--       where it is no more; then each client's limits as JSON, [calls, seconds].
--
-- The parts are written if nobody has written any since that version. Answers:
-- whether they were; whether the caller has a lease; the version; the epoch, which is the first one;
-- whether something was there that this script has not written; the instant, in seconds and microseconds;
-- whether all is told or what has changed since, and that, as names and texts;
-- of each client what it has used of its limits, [calls, milliseconds left];
-- the version on which the caller wrote last, if it has.

local parts, changed = KEYS[1], KEYS[2]
local caller, lease, lasting = ARGV[1], ARGV[2], ARGV[3]
local known, writes = tonumber(ARGV[4]), tonumber(ARGV[5])
local time, wrote = redis.call('TIME'), parts .. ':' .. caller

local function digits(number) return string.format('%.0f', number) end

local function noted(field)  -- whoever has written something else there has made it worthless
  local text = redis.pcall('HGET', parts, field)
  return type(text) == 'string' and tonumber(text) or nil
end

local discarded = 0
local version, epoch, compacted = noted('version'), noted('epoch'), noted('compacted')
if not (version and epoch and compacted) or redis.call('TYPE', changed).ok ~= 'zset' then
  discarded = redis.call('DEL', parts, changed) > 0 and 1 or 0
  version, epoch, compacted = 0, 0, 0
end

-- Who was refused comes next: while its lease lasts nobody else writes. Else the busiest would always be the fastest.
local instant = time[1] * 1000000 + time[2]
local holder = redis.call('HGET', parts, 'lease_holder')
local wait = (noted('lease_until') or 0) - instant
if wait < 0 or wait > 1000000 then holder = false end  -- over, or told by a clock that was set back since
local accepted = version == known and (writes == 0 or not holder or holder == caller)
local told, complete = {}, 0
if accepted and writes > 0 then
  -- The instant, so that no version that anybody has known comes again in a Redis that was emptied.
  version = math.max(version + 1, instant)
  if epoch == 0 then epoch, compacted = version, version end
  for place = 6, 2 * writes + 4, 2 do
    local name, text = ARGV[place], ARGV[place + 1]
    if text == '' then
      redis.call('HDEL', parts, name)
      redis.call('ZREM', changed, name)
      compacted = version
    else
      redis.call('HSET', parts, name, text)
      redis.call('ZADD', changed, digits(version), name)
    end
  end
  redis.call('HSET', parts, 'version', digits(version), 'epoch', digits(epoch), 'compacted', digits(compacted))
  redis.call('HDEL', parts, 'lease_holder')
  redis.call('SET', wrote, digits(known), 'EX', lasting)
  redis.call('EXPIRE', parts, lasting)
  redis.call('EXPIRE', changed, lasting)
elseif not accepted and version > 0 then
  if writes > 0 and not holder then
    holder = caller
    redis.call('HSET', parts, 'lease_holder', caller, 'lease_until', digits(instant + lease))
  end
  local names = redis.call('ZRANGEBYSCORE', changed, '(' .. digits(known), '+inf')
  if known < compacted or #names > 1000 then
    complete, names = 1, redis.call('ZRANGE', changed, 0, -1)
  end
  for place, name in ipairs(names) do
    told[2 * place - 1], told[2 * place] = name, redis.call('HGET', parts, name) or ''
  end
end

local counts = {}
for place = 3, #KEYS do
  local client, used = KEYS[place], {}
  for _, limit in ipairs(cjson.decode(ARGV[2 * writes + place + 3])) do
    local window = client .. ':' .. limit[2]
    local calls = redis.pcall('INCR', window)
    if type(calls) ~= 'number' then
      redis.call('DEL', window)
      calls = redis.call('INCR', window)
    end
    if redis.call('PTTL', window) < 0 then redis.call('EXPIRE', window, limit[2]) end
    used[#used + 1] = {calls, redis.call('PTTL', window)}
    if calls > limit[1] then break end
  end
  counts[place - 2] = used
end

return {
  accepted and 1 or 0, holder == caller and 1 or 0, version, epoch,
  discarded, time[1], time[2],
  complete, told,
  counts,
  tonumber(redis.pcall('GET', wrote)) or -2,
}
