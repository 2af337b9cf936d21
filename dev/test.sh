#!/bin/bash
# Lints, brings up the cluster, and runs the tests: alone, against real databases, and end to end on kind.
# Usage: dev/test.sh [--include-ignored]  (with those that take minutes each)
set -euo pipefail
. "$(dirname "$0")/lib.sh"
log=$cache/logs/cargo-test.log

"$root/dev/lint.sh"
"$root/dev/platform.sh"
step "Helm" "1 s, 2 min to build it" "$root/dev/tools.sh" helm

# The operator's tests start Redis servers of their own.
command -v redis-server >/dev/null || step "Redis" "10 s" apt_install redis-server

# The gateway's tests start it, with the Lua that the image has.
{ command -v nginx && [ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] && [ -e /usr/share/lua/5.1/nginx/dns/resolver.lua ]; } >/dev/null ||
  step "nginx" "10 s" apt_install nginx-light libnginx-mod-http-lua lua-nginx-dns

# What shows the API's documentation.
[ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || step "Chromium" "30 s" apt_install chromium

printf '==> Test services: PostgreSQL, PgBouncer, Redis Cluster, RabbitMQ (10 s, 1 min to install them)\n'
trap '"$root/dev/test-services.sh" stop' EXIT
services=$("$root/dev/test-services.sh" start 3>&-)
eval "$services"

printf '==> Tests (35 min)\n'
# Checkouts may share what is compiled; the snapshots are this one's.
export INSTA_WORKSPACE_ROOT=$root
export KUBE_CONTEXT=$context TASKPLATFORM_GATEWAY_NODE_PORT=30081 TASKPLATFORM_GATEWAY_PORT=$test_gateway_port
status=0
cargo test --release --locked --workspace --no-fail-fast --manifest-path "$root/Cargo.toml" -- "$@" 2>&1 </dev/null | tee "$log" || status=$?

awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
  END { printf "\ntests: %d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$status"
