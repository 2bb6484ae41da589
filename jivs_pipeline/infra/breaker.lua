-- The circuit breaker of one endpoint: core/breaker.py once more, as one atomic step. Change both or none.
--
-- KEYS[1]  hash with the breaker's state
-- KEYS[2]  list of transitions that nobody has recorded yet, JSON
-- ARGV     verb, name, now (milliseconds, '' for the server's time),
--          window, least, failure_percent, slow_percent, open_ms, probes, ticket_ms, keep_ms,
--          and of the verb: admit  ticket
--                           record ticket, period, outcome (o, s, f or b)
--                           forget ticket
--                           reset  reason
-- Returns  {verdict, until, state, calls, failures, slow, period, now, transitions that wait}
--          verdict: 1 admitted, 2 admitted as a probe, 0 rejected or nothing to decide

local verb, name = ARGV[1], ARGV[2]
local window, least, failure_percent, slow_percent, open_ms, probes, ticket_ms, keep_ms =
  tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]),
  tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local WEEK_MS, MOST_WAITING = 7 * 24 * 3600 * 1000, 1000

local now = tonumber(ARGV[3])
if now == nil then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- tostring() would write 1.7e+12
local function whole(number) return string.format('%.0f', number) end

local found = redis.call('HMGET', KEYS[1], 'state', 'calls', 'opened_at', 'period', 'passed', 'touched', 'probes')
local state, calls = found[1] or 'closed', found[2] or ''
local opened_at, period = tonumber(found[3] or 0), tonumber(found[4] or 0)
local passed, touched = tonumber(found[5] or 0), tonumber(found[6] or 0)
local under_way = {}
for id, expires in string.gmatch(found[7] or '', '([^=;]+)=(%d+);') do
  table.insert(under_way, {id, tonumber(expires)})
end

local function count(letter) return select(2, string.gsub(calls, '[b' .. letter .. ']', '')) end

local function change(after, reason)
  redis.call('RPUSH', KEYS[2], cjson.encode({
    name = name, before = state, after = after, reason = reason, at = whole(now)}))
  redis.call('LTRIM', KEYS[2], -MOST_WAITING, -1)
  if after == 'closed' then calls = '' end
  if after == 'open' then opened_at = now end
  state, period, passed = after, period + 1, 0
end

local function keep_probes(wanted)
  local kept = {}
  for _, probe in ipairs(under_way) do
    if wanted(probe) then table.insert(kept, probe) end
  end
  under_way = kept
end

local function alive(probe) return now < probe[2] and probe[2] <= now + ticket_ms end

local function counted(outcome)
  calls = string.sub(calls .. outcome, -window)
  touched = now
end

local function judge()
  local all, failed, slow = #calls, count('f'), count('s')
  if all < least then return end
  if failed * 100 >= failure_percent * all then
    change('open', failed .. ' of the last ' .. all .. ' calls failed')
  elseif slow * 100 >= slow_percent * all then
    change('open', slow .. ' of the last ' .. all .. ' calls were slow')
  end
end

local verbs = {}

function verbs.admit(ticket)
  if state == 'closed' then return 1 end
  if state == 'open' then
    -- A clock that was set back must not keep it open for longer.
    local age = now - opened_at
    if age >= 0 and age < open_ms then return 0 end
    change('half_open', 'its time is over')
  end
  keep_probes(alive)
  if #under_way + passed >= probes then return 0 end
  table.insert(under_way, {ticket, now + ticket_ms})
  return 2
end

function verbs.forget(ticket)
  keep_probes(function(probe) return probe[1] ~= ticket end)
  return 0
end

function verbs.record(ticket, of_period, outcome)
  if tonumber(of_period) ~= period then return verbs.forget(ticket) end
  if state == 'closed' then
    local age = now - touched
    if age < 0 or age >= keep_ms then calls = '' end
    counted(outcome)
    judge()
    return 0
  end
  local in_time = false
  for _, probe in ipairs(under_way) do
    if probe[1] == ticket then in_time = alive(probe) end
  end
  if not in_time then return 0 end
  verbs.forget(ticket)
  counted(outcome)
  if outcome ~= 'o' then
    change('open', 'a probe failed')
  else
    passed = passed + 1
    if passed >= probes then change('closed', probes .. ' probes succeeded') end
  end
  return 0
end

function verbs.reset(reason)
  if state ~= 'closed' then
    change('closed', reason)
  else
    calls, period = '', period + 1
  end
  return 0
end

local verdict = verbs[verb](ARGV[12], ARGV[13], ARGV[14])

local until_ms = 0
if state == 'open' then
  until_ms = opened_at + open_ms
elseif state == 'half_open' and #under_way + passed >= probes then
  for _, probe in ipairs(under_way) do
    if until_ms == 0 or probe[2] < until_ms then until_ms = probe[2] end
  end
end

-- An admission to a closed breaker changes nothing.
if verb ~= 'admit' or state ~= 'closed' then
  local written = {}
  for _, probe in ipairs(under_way) do table.insert(written, probe[1] .. '=' .. whole(probe[2]) .. ';') end
  redis.call('HSET', KEYS[1], 'state', state, 'calls', calls, 'opened_at', whole(opened_at),
    'period', whole(period), 'passed', whole(passed), 'touched', whole(touched),
    'probes', table.concat(written))
  redis.call('PEXPIRE', KEYS[1], whole(math.max(WEEK_MS, keep_ms)))
end

return {verdict, whole(until_ms), state, #calls, count('f'), count('s'), whole(period), whole(now),
  redis.call('LLEN', KEYS[2])}
