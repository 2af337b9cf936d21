-- The instances of the API: where they are, which of them answer, and whose turn it is.
--
-- One of nginx's workers looks their addresses up and asks each whether it lives, once a second. All workers share what it finds, and pick
-- an instance for every request by themselves. What was found last holds until something else is: without DNS, traffic goes on.

local balancer = require "ngx.balancer"
local resolver = require "nginx.dns.resolver"

local RESOLV_CONF = "/etc/resolv.conf"
local DNS_PORT = 53
-- For a name server's answer, and for a connection to an instance and its answer. An instance that does not answer must not hold up the
-- next look, and is to be left out before a request to it is tried elsewhere.
local TIMEOUT_MS = 800
-- As many instances as a platform may have.
local MOST_PEERS = 1000
-- An instance that was left out stays so while it is asked in vain. If nobody asks, it is tried again.
local LEFT_OUT_SECONDS = 10
-- An instance that DNS no longer confirms is forgotten after so many questions in vain: its address may become somebody else's.
local FORGOTTEN_AFTER = 20

-- Every worker knows within this time what one has found.
local READ_EVERY_SECONDS = 0.1

-- How often a request is tried, where it may be: see proxy_next_upstream.
local TRIES = 3
-- nginx.conf's proxy_connect_timeout, and its proxy_read_timeout, in which an instance has to answer what another one may be asked as well.
local CONNECTION_SECONDS = 1
local PATIENCE_SECONDS = 2
-- What may not be asked twice takes longer, and so does everything while all are slow: see judge.
local LONGEST_ANSWER_SECONDS = 30
local SLOW_SECONDS = 30
local ASKED_ELSEWHERE = { GET = true, HEAD = true }
-- NGX_BUSY: the request ends with 502.
local NOBODY_LEFT = -3

local NO_SUCH_NAME = 3
local FOUND, NO_ADDRESS = "found", "no address"

local peers = {}
local shared = ngx.shared.peers

-- What this worker has read of `shared`, and when.
local all, answering, slow, read_at = {}, {}, false, 0
local turn = 0

local port

-- The addresses, one a line, in the way that nginx writes them.
local function addresses()
  local list = {}
  for address in (shared:get("addresses") or ""):gmatch("%S+") do
    list[#list + 1] = address
  end
  return list
end

local function why_left_out(address)
  return shared:get("left out " .. address)
end

local function leave_out(address, why)
  local before = why_left_out(address)
  shared:set("left out " .. address, why, LEFT_OUT_SECONDS)
  if not before then
    ngx.log(ngx.WARN, "instance ", address, " is left out: ", why)
  end
end

local function take_back(address)
  if why_left_out(address) then
    shared:delete("left out " .. address)
    ngx.log(ngx.WARN, "instance ", address, " answers again")
  end
end

-- Where they are ----------------------------------------------------------------------------------------------------------------------------

local function bracketed(address)
  return address:find(":", 1, true) and "[" .. address .. "]" or address
end

-- The name servers, and the full name: nginx does not try the domains of the search list.
local function read_resolv_conf(service, namespace)
  local nameservers, name = {}, service .. "." .. namespace .. ".svc"
  for line in io.lines(RESOLV_CONF) do
    local keyword, value = line:match("^(%S+)%s+(.-)%s*$")
    if keyword == "nameserver" then
      nameservers[#nameservers + 1] = { bracketed(value), DNS_PORT }
    elseif keyword == "search" then
      for domain in value:gmatch("%S+") do
        if domain:find(namespace .. ".svc.", 1, true) == 1 then
          name = service .. "." .. domain
        end
      end
    end
  end
  return nameservers, name
end

-- The addresses of one family; none and why where nobody answers.
local function ask_dns(dns, name, family)
  local answers, problem = dns:query(name, { qtype = family })
  if not answers then
    return nil, problem
  end
  if answers.errcode and answers.errcode ~= NO_SUCH_NAME then
    return nil, answers.errstr
  end
  local found = {}
  for _, answer in ipairs(answers) do
    found[#found + 1] = answer.address and bracketed(answer.address)
  end
  return found
end

local function look_up(nameservers, name)
  local dns, problem = resolver:new { nameservers = nameservers, timeout = TIMEOUT_MS, retrans = 2 }
  if not dns then
    return nil, problem
  end
  local v4, problem_v4 = ask_dns(dns, name, resolver.TYPE_A)
  local v6, problem_v6 = ask_dns(dns, name, resolver.TYPE_AAAA)
  local found = v4 or {}
  for _, address in ipairs(v6 or {}) do
    found[#found + 1] = address
  end
  if #found == 0 then
    return nil, problem_v4 or problem_v6 or NO_ADDRESS
  end
  return found
end

local function keep(found)
  -- DNS gives them in another order each time.
  table.sort(found)
  local text = table.concat(found, "\n", 1, math.min(#found, MOST_PEERS))
  if text ~= (shared:get("addresses") or "") then
    shared:set("addresses", text)
    ngx.log(ngx.WARN, "the instances are now ", (text:gsub("\n", ", ")))
  end
end

local function follow_dns(nameservers, name)
  local found, problem = look_up(nameservers, name)
  if found then
    keep(found)
  end
  local outcome = found and FOUND or problem
  if outcome ~= shared:get("lookup") then
    shared:set("lookup", outcome)
    ngx.log(ngx.WARN, "looking up ", name, ": ", outcome)
  end
end

-- Which of them answer ----------------------------------------------------------------------------------------------------------------------

-- Nothing if the instance lives, otherwise what is wrong with it.
local function ask_whether_it_lives(address)
  local socket = ngx.socket.tcp()
  socket:settimeout(TIMEOUT_MS)
  local ok, problem = socket:connect(address, port)
  if not ok then
    return problem
  end
  socket:send("GET /api/health HTTP/1.1\r\nHost: " .. address .. "\r\nConnection: close\r\n\r\n")
  local status
  status, problem = socket:receive()
  socket:close()
  if not status then
    return problem
  end
  if not status:find("^HTTP/1%.[01] 2") then
    return "it does not serve"
  end
end

-- Takes an instance back or leaves it out. Returns how often it was asked in vain, this time included.
local function look_after(address, in_vain_before)
  local problem = ask_whether_it_lives(address)
  if not problem then
    take_back(address)
    return 0
  end
  leave_out(address, problem)
  return in_vain_before + 1
end

-- How often each instance was asked in vain without an answer between.
local in_vain = {}

local function look_after_all()
  local threads, asked = {}, {}
  for _, address in ipairs(addresses()) do
    threads[address] = ngx.thread.spawn(look_after, address, in_vain[address] or 0)
  end
  for address, thread in pairs(threads) do
    local ok, times = ngx.thread.wait(thread)
    asked[address] = ok and times or nil
  end
  in_vain = asked
end

local function forget_lost()
  if shared:get("lookup") == FOUND then
    return
  end
  local kept = {}
  for _, address in ipairs(addresses()) do
    if (in_vain[address] or 0) < FORGOTTEN_AFTER then
      kept[#kept + 1] = address
    end
  end
  keep(kept)
end

-- Runs a task now and once a second, but never twice at once.
local function once_a_second(task)
  local running = false
  local function run(is_the_end)
    if is_the_end or running then
      return
    end
    running = true
    local ok, problem = pcall(task)
    running = false
    if not ok then
      ngx.log(ngx.ERR, problem)
    end
  end
  assert(ngx.timer.at(0, run))
  assert(ngx.timer.every(1, run))
end

-- Begins in each of nginx's workers.
function peers.start(service, namespace, api_port)
  port = api_port
  -- Workers that all began with the same instance would make it the busiest.
  turn = ngx.worker.pid()
  if ngx.worker.id() == 0 then
    local nameservers, name = read_resolv_conf(service, namespace)
    once_a_second(function() follow_dns(nameservers, name) end)
    once_a_second(function() look_after_all() forget_lost() end)
  end
end

-- Whose turn it is --------------------------------------------------------------------------------------------------------------------------

local function read_shared(now)
  if now < read_at + READ_EVERY_SECONDS then
    return
  end
  read_at = now
  slow = shared:get("slow")
  all, answering = addresses(), {}
  for _, address in ipairs(all) do
    if not why_left_out(address) then
      answering[#answering + 1] = address
    end
  end
end

-- The next one that this request was not sent to yet.
local function next_of(list, try)
  for _ = 1, #list do
    turn = turn + 1
    local address = list[turn % #list + 1]
    if not try[address] then
      return address
    end
  end
end

-- Where nobody answers, or all that do were tried, any may still be better than none.
local function choose(try)
  return next_of(answering, try) or next_of(all, try) or next_of(all, {})
end

-- What the try before says of its instance. Only the time tells a connection that nobody accepted from an answer that did not come.
local function judge(try, now)
  local _, status = balancer.get_last_failure()
  local was_connected = now - try.began > (CONNECTION_SECONDS + PATIENCE_SECONDS) / 2
  if status ~= 504 or not was_connected then
    leave_out(try.address, status == 504 and "no connection" or "a request failed")
  elseif not why_left_out(try.address) then
    -- It lives, so it is slow, and others will hardly be faster: to ask twice makes it worse.
    shared:set("slow", true, SLOW_SECONDS)
  end
  read_at = 0
end

-- Whether an instance got the request: there is no time of a connection that was never made.
local function was_sent()
  return (ngx.var.upstream_connect_time or ""):find("%d") ~= nil
end

-- Picks the instance that the request is sent to next. What is known of its tries is in `try`, where each address that was tried is a key.
function peers.pick()
  local now, try = ngx.now(), ngx.ctx
  local is_first = not try.count
  if is_first then
    assert(balancer.set_more_tries(TRIES - 1))
  else
    judge(try, now)
  end
  local is_question = ASKED_ELSEWHERE[ngx.req.get_method()]
  if not is_question and was_sent() then
    return ngx.exit(NOBODY_LEFT)
  end
  read_shared(now)
  if slow or not is_first or not is_question then
    assert(balancer.set_timeouts(nil, nil, LONGEST_ANSWER_SECONDS))
  end
  local address = choose(try)
  try.count = (try.count or 0) + 1
  -- nginx adds a try of its own for each connection that breaks off after it was kept open.
  if not address or try.count > TRIES then
    return ngx.exit(NOBODY_LEFT)
  end
  try.address, try.began, try[address] = address, now, true
  assert(balancer.set_current_peer(address, port))
end

-- What an operator asks ---------------------------------------------------------------------------------------------------------------------

-- Whether the instances are known; where they are not, another gateway may know them.
function peers.are_known()
  return #addresses() > 0 or shared:get("lookup") == NO_ADDRESS
end

-- As JSON.
function peers.report()
  local list = {}
  for _, address in ipairs(addresses()) do
    local why = why_left_out(address)
    local state = why and string.format('"left out","why":"%s"', why) or '"answers"'
    list[#list + 1] = string.format('{"address":"%s","state":%s}', address, state)
  end
  local lookup, is_slow = shared:get("lookup") or "none yet", shared:get("slow") or false
  return string.format('{"lookup":"%s","slow":%s,"peers":[%s]}\n', lookup, is_slow, table.concat(list, ","))
end

return peers
