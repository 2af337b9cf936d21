#!/bin/bash
# The task API, alone on SQLite and on PostgreSQL, PgBouncer and Redis, beside the baseline that it replaces: throughput, latency, CPU, memory.
# Usage: bench/api.sh [--quick] [ROUNDS]  (5 rounds, 25 min, into bench/results and docs/performance.md; --quick: one round of fewer loads,
#                                          3 min, which changes no file of the checkout)
set -euo pipefail
. "$(dirname "$0")/../dev/lib.sh"

rounds=5 seconds=4 closed=100,500,1000,2000,5000,10000
# Open loops, requests a second: what the baseline still holds, and up to the targets.
slow=4000 fast=4000,8000,12000
results=$root/bench/results document=(--document "$root/docs/performance.md")
if [ "${1:-}" = --quick ]; then
  shift
  rounds=1 seconds=2 closed=500,2000
  results=$cache/bench/results document=()
fi
rounds=${1:-$rounds}
work=$cache/bench baseline=$cache/bench/baseline
host=127.0.0.1 port=18080 metrics_port=18081

export TASK_API_LISTEN=$host:$port TASK_API_METRICS_LISTEN=$host:$metrics_port SIGNING_KEY=of-the-benchmark-alone LOG_FORMAT=json
export PORT=$port METRICS_PORT=$metrics_port
unset DATABASE_URL DATABASE_READ_URL SESSIONS_URL CACHE_URL AMQP_URL OTEL_EXPORTER_OTLP_ENDPOINT

# The features of the whole workspace: what the images and the tests use.
build() { cargo build --release --locked --workspace --bin task-api --bin load; }

install_baseline() {
  command -v npm >/dev/null || apt_install npm
  mkdir -p "$baseline"
  cp -r "$root"/bench/baseline/{package.json,package-lock.json,src} "$baseline"
  npm ci --prefix "$baseline" --no-audit --no-fund
}

# 10,000 connections, their listener, and what else a server opens.
raise_limit() {
  ulimit -n 20000 2>/dev/null || [ "$(ulimit -n)" -gt 10500 ] ||
    die "a process may open $(ulimit -n) files, and 10,000 connections take 10,500: raise the limit (ulimit -n 20000)"
}

services() { TEST_SERVICES=durable "$root/dev/test-services.sh" "$@"; }

# measure NAME RATES COMMAND [ARGUMENT…]: a server under every load.
measure() {
  local name=$1 open=$2
  shift 2
  "$CARGO_TARGET_DIR/release/load" run --name "$name" --address $host:$port "${stores[@]}" --closed "$closed" --open "$open" \
    --seconds "$seconds" --out "$work/runs.jsonl" --log "$work/$name.log" -- "$@" | sed 's/^/      /' >&3
}

# Every run begins with empty databases: a faster server must not meet what more requests have left behind.
run_baseline() {
  DATABASE=$work/data/baseline.db measure baseline $slow "$baseline/node_modules/.bin/bun" "$baseline/src/server.ts"
}

run_alone() {
  DATABASE_URL=$work/data/alone.db measure alone $fast "$CARGO_TARGET_DIR/release/task-api"
}

run_platform() {
  local pid
  services stop
  eval "$(services)"
  for pid in "$TASK_API_TEST_STATE"/*.pid; do stores+=(--store "$(cat "$pid")"); done
  DATABASE_URL=$TASK_API_TEST_POSTGRES_URL SESSIONS_URL=$TASK_API_TEST_REDIS_URL CACHE_URL=$TASK_API_TEST_REDIS_URL \
    measure platform $fast "$CARGO_TARGET_DIR/release/task-api"
  services stop
}

machine() {
  local model memory
  model=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
  memory=$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)
  echo "$(nproc) × $model, $memory GiB, Linux $(uname -r | cut -d. -f1,2)"
}

mkdir -p "$work"
raise_limit
step "Build the task API and the generator" "10 s, 4 min with a cold cache" build
step "Install the baseline" "5 s" install_baseline
trap 'services stop; rm -rf "$work/data"' EXIT
rm -f "$work/runs.jsonl"
for round in $(seq "$rounds"); do
  for server in baseline alone platform; do
    printf '==> Round %d of %d: %s\n' "$round" "$rounds" "$server" >&3
    rm -rf "$work/data"
    mkdir -p "$work/data"
    stores=()
    "run_$server"
  done
done
"$CARGO_TARGET_DIR/release/load" report --runs "$work/runs.jsonl" --results "$results" "${document[@]}" \
  --conditions "$(date +%F), $(machine): server, stores and generator share it. Each load is measured for $seconds s after $((seconds / 4)) s." >&3
say "the measurements are in $results"
