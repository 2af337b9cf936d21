-- When changes of tasks were acknowledged again after a while in which somebody waited for one, for the operator to tell of a failover.

-- A shorter wait is nothing.
local PAUSE_SECONDS = 0.2
local REMEMBERED = 10
local QUESTION = { GET = true, HEAD = true, OPTIONS = true }
local TASKS = "/api/tasks"
-- The client has not waited for the answer; above it are answers that it got.
local GIVEN_UP = 499

local writes = {}
local shared = ngx.shared.writes

local function remember(from, to)
  local number = shared:incr("pauses", 1, 0)
  shared:set("pause " .. number % REMEMBERED, string.format('{"from":%.0f,"to":%.0f}', from * 1000, to * 1000))
end

-- Notes what became of a request.
function writes.note()
  if QUESTION[ngx.var.request_method] or ngx.var.uri:find(TASKS, 1, true) ~= 1 then
    return
  end
  local now = ngx.now()
  local began = now - ngx.var.request_time
  if ngx.status >= GIVEN_UP then
    -- Since when somebody has waited: the first who did not get it.
    shared:add("waits since", began)
  elseif ngx.status < 300 then
    local acknowledged = shared:get("acknowledged") or began
    shared:set("acknowledged", now)
    -- Nobody waits while nobody asks.
    local from = math.max(acknowledged, math.min(shared:get("waits since") or began, began))
    shared:delete("waits since")
    if now - from > PAUSE_SECONDS then
      remember(from, now)
    end
  end
end

-- The last pauses as JSON, in milliseconds since 1970.
function writes.report()
  local number, list = shared:get("pauses") or 0, {}
  for at = math.max(1, number - REMEMBERED + 1), number do
    list[#list + 1] = shared:get("pause " .. at % REMEMBERED)
  end
  return "[" .. table.concat(list, ",") .. "]\n"
end

return writes
