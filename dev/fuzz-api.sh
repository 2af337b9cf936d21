#!/bin/bash
# Sends the task API what its OpenAPI document allows and forbids, and checks every answer against the document (schemathesis): alone on
# SQLite, and on PostgreSQL where the test services run.
# Usage: dev/fuzz-api.sh [EXAMPLES]    so many requests an operation and phase; 50 without
set -euo pipefail
. "$(dirname "$0")/lib.sh"
examples=${1:-50}
tool=$cache/schemathesis-4.32.5

install_tool() {
  if [ -x "$tool/bin/schemathesis" ]; then return; fi
  rm -rf "$tool"
  python3 -m venv "$tool"
  "$tool/bin/pip" install --quiet "schemathesis==${tool##*-}"
}

# fuzz NAME [VARIABLE=VALUE…]: an instance with this environment.
fuzz() {
  local name=$1 work=$cache/fuzz/$1 address pid token status=0
  shift
  rm -rf "$work"
  mkdir -p "$work"
  env "$@" RUST_LOG=info "$CARGO_TARGET_DIR/release/task-api" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --log-format json \
    >"$work/task-api.log" 2>&1 </dev/null 3>&- &
  pid=$!
  # shellcheck disable=SC2064 # this process, not whichever there is then
  trap "kill $pid 2>/dev/null || true" EXIT
  for _ in $(seq 100); do
    address=http://$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$work/task-api.log" | head -n 1)
    if curl -sf "$address/api/ready" >/dev/null; then break; fi
    sleep 0.1
  done
  register "$address" >"$work/token" || { cat "$work/task-api.log" >&2; die "task-api is not ready: above is what it said"; }
  token=$(cat "$work/token")
  say "$name: $address, its log is $work/task-api.log"
  run "$address" "$token" --exclude-path /api/auth/logout || status=$?
  # A session ends here, so this has one of its own.
  run "$address" "$(register "$address")" --include-path /api/auth/logout || status=$?
  kill "$pid"
  wait "$pid" || true
  [ "$status" = 0 ] || die "$name: the API does not do what its document says; the report is above"
}

# Makes an account, and prints its token.
register() {
  local body
  body=$(printf '{"email": "fuzz-%s-%s@example.com", "password": "correct horse battery"}' "$(date +%s)" "$RANDOM$RANDOM")
  curl -sf -X POST "$1/api/auth/register" -H 'Content-Type: application/json' -d "$body" | sed -n 's/.*"token":"\([^"]*\)".*/\1/p' | grep .
}

run() { # ADDRESS TOKEN [OPTION…]
  local address=$1 token=$2
  shift 2
  # What the tool remembers between runs stays in the cache.
  mkdir -p "$cache/fuzz/schemathesis"
  cp "$root"/dev/fuzz-api/* "$cache/fuzz/schemathesis/"
  (cd "$cache/fuzz/schemathesis" && "$tool/bin/schemathesis" --config-file schemathesis.toml run "$address/api/openapi.json" \
    --header "Authorization: Bearer $token" --max-examples "$examples" --no-color "$@")
}

step "schemathesis" "20 s to install it" install_tool
step "task-api" "3 min with a cold cache" cargo build --release --locked --workspace --bin task-api --manifest-path "$root/Cargo.toml"
fuzz sqlite "DATABASE_URL=$cache/fuzz/sqlite/tasks.db"
if [ -n "${TASK_API_TEST_POSTGRES_URL:-}" ]; then
  fuzz postgresql "DATABASE_URL=$TASK_API_TEST_POSTGRES_URL" "DATABASE_READ_URL=$TASK_API_TEST_POSTGRES_READ_URL" \
    "SESSIONS_URL=$TASK_API_TEST_REDIS_URL" "SIGNING_KEY=the same in every instance"
else
  say "PostgreSQL is left out; for it: eval \"\$(dev/test-services.sh)\""
fi
