#!/bin/bash
# Starts throw-away PostgreSQL (a primary and a replica), PgBouncer in transaction mode, a Redis Cluster of three nodes and RabbitMQ on free
# loopback ports, for the tests of api-server/.
# Usage: eval "$(dev/test-services.sh)"       starts them, or finds them running, and says where they are
#        dev/test-services.sh pooler stop     ends PgBouncer as a crash would; `pooler start` brings it back
#        dev/test-services.sh primary stop    ends the primary as a crash would; `primary start` brings it back
#        dev/test-services.sh sessions stop   ends every Redis node as a crash would; `sessions start` brings them back, empty
#        dev/test-services.sh broker stop     ends RabbitMQ as a crash would; `broker start` brings it back, with what it had confirmed
#        dev/test-services.sh stop            ends all of it and removes its files
#
# With TEST_SERVICES=durable, what benchmarks take: PostgreSQL that has every commit on disk, PgBouncer and the Redis Cluster; neither a
# replica nor RabbitMQ.
#
# PgBouncer has to be 1.21 or later (prepared statements in transaction mode), RabbitMQ 3.13 or later. Where one of the distribution's is
# older, all of it comes from Debian trixie, in a root file system that is made once and kept in the cache.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
# What is said goes to standard error: standard output is for the shell that evaluates it.
exec 3>&2

rabbitmq=/usr/lib/rabbitmq
packages=postgresql,pgbouncer,redis-server,redis-tools,rabbitmq-server
# Another list is another root.
trixie=$cache/test-services-trixie-$(cksum <<<"$packages" | cut -d' ' -f1)
kind=${TEST_SERVICES:-all}
name=taskplatform-test-services-$(cksum <<<"$root${TEST_SERVICES:-}" | cut -d' ' -f1)
state=${TMPDIR:-/tmp}/$name

newest() { printf '%s\n' "$@" | sort -V | tail -n 1; }

local_postgres() { newest "$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null || dirname "$(command -v initdb || echo /usr/bin/initdb)")"; }

# above VERSION LEAST
above() { [ -n "$1" ] && [ "$(newest "$1" "$2")" != "$2" ]; }

local_tools() {
  above "$(pgbouncer --version 2>/dev/null | sed -n 's/^PgBouncer //p')" 1.21 &&
    [ -x "$rabbitmq/bin/rabbitmq-server" ] && above "$(newest "$rabbitmq"/lib/rabbitmq_server-* | sed 's/.*-//')" 3.13 &&
    command -v redis-server >/dev/null && [ -x "$(local_postgres)/initdb" ]
}

offered() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p'; }

offers_tools() { above "$(offered pgbouncer)" 1.21 && above "$(offered rabbitmq-server)" 3.13; }

# Sets `jail`, the root file system that the servers run in; empty for this one.
find_tools() {
  jail=
  if local_tools; then return; fi
  [ "$(id -u)" = 0 ] ||
    die "PostgreSQL, PgBouncer 1.21, RabbitMQ 3.13 (or later) and redis-server are needed. Install them, or run this as root on Debian or Ubuntu"
  if offers_tools; then
    apt_install postgresql pgbouncer redis-server rabbitmq-server
    return
  fi
  jail=$trixie
  if [ -d "$jail" ]; then return; fi
  command -v mmdebstrap >/dev/null || apt_install mmdebstrap
  say "making a Debian trixie with PostgreSQL, PgBouncer, Redis and RabbitMQ (once, 1 min)"
  mmdebstrap --quiet --variant=minbase --include="$packages" trixie "$jail.$$" >&3
  # Another checkout may have made it meanwhile.
  mv -T "$jail.$$" "$jail" 2>/dev/null || rm -rf "$jail.$$"
}

# Sets `as_user`, what goes before a command: PostgreSQL and PgBouncer refuse to run as root.
find_user() {
  as_user=(env)
  if [ -n "$jail" ]; then
    as_user=(chroot --userspec=postgres:postgres "$jail")
  elif [ "$(id -u)" = 0 ]; then
    as_user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
  fi
}

# background NAME COMMAND [ARGUMENT…]: its process id is in $state/NAME.pid, what it says in $state/NAME.log.
background() {
  local service=$1
  shift
  "${as_user[@]}" "$@" >"$state/$service.log" 2>&1 </dev/null 3>&- &
  echo $! >"$state/$service.pid"
  disown
}

# await NAME COMMAND [ARGUMENT…]: until it succeeds; the service has 30 seconds.
await() {
  local service=$1
  shift
  for _ in $(seq 600); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  tail -n 20 "$state/$service.log" >&2
  die "$service does not answer; above is what it said"
}

# free_ports COUNT: so many in a row, with room for Redis' bus ports, which are higher by 10000. All are below 32768: the ports from there on
# are those that connections are made from.
free_ports() {
  local base port
  for _ in $(seq 100); do
    base=$((20000 + RANDOM % 2700))
    for port in $(seq $base $((base + $1 - 1))) $(seq $((base + 10000)) $((base + 10000 + $1 - 1))); do
      if (exec 4<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
    done
    echo $base
    return
  done
  die "no free ports between 20000 and 22700 on the loopback"
}

start_postgres() { # NAME PORT DATA
  local durability=(-c fsync=off -c full_page_writes=off -c shared_buffers=32MB)
  if [ "$kind" = durable ]; then
    # As the operator sets them.
    durability=(-c fsync=on -c synchronous_commit=on -c shared_buffers=256MB -c wal_compression=on -c checkpoint_timeout=15min
      -c max_wal_size=4GB -c min_wal_size=1GB -c random_page_cost=1.1 -c jit=off)
  fi
  background "$1" "$bin/postgres" -D "$3" -p "$2" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    "${durability[@]}" -c max_connections=150 -c dynamic_shared_memory_type=mmap \
    -c max_prepared_transactions=0 -c wal_level=replica -c hot_standby=on -c log_min_messages=warning
}

sql() { "${as_user[@]}" "$bin/psql" -qAtX -h 127.0.0.1 -p "$1" -U postgres -d "$2" -v ON_ERROR_STOP=1 -c "$3"; }

# A server that has run for a while writes its log into files that it has used before. A new one has to make each of them first, and
# commits wait meanwhile.
run_in() {
  sql "$primary" postgres "SELECT pg_logical_emit_message(false, 'run in', repeat(md5(n::text), 500000)) FROM generate_series(1, 60) AS n" >/dev/null
  sql "$primary" postgres CHECKPOINT
}

restart_primary() {
  start_postgres primary "$primary" "$data/primary"
  await primary sql "$primary" postgres "SELECT 1"
}

start_primary() {
  "${as_user[@]}" "$bin/initdb" -D "$data/primary" -U postgres -A trust --no-sync --locale=C.UTF-8 -E UTF8 >"$state/initdb.log" 2>&1 ||
    { cat "$state/initdb.log" >&2; die "initdb failed; above is what it said"; }
  restart_primary
  sql "$primary" postgres "CREATE ROLE tasks LOGIN PASSWORD 'tasks'"
  sql "$primary" postgres "CREATE DATABASE tasks OWNER tasks"
  if [ "$kind" = durable ]; then run_in; fi
}

start_replica() {
  "${as_user[@]}" "$bin/pg_basebackup" -h 127.0.0.1 -p "$primary" -U postgres -D "$data/replica" -R --no-sync -c fast
  start_postgres replica "$replica" "$data/replica"
  await replica sql "$replica" postgres "SELECT 1"
}

start_pooler() {
  background pooler "$pgbouncer" "$data/pgbouncer.ini"
  await pooler sql "$pooler" tasks "SELECT 1"
}

configure_pooler() {
  "${as_user[@]}" tee "$data/users.txt" >/dev/null <<<'"postgres" ""
"tasks" "tasks"'
  "${as_user[@]}" tee "$data/pgbouncer.ini" >/dev/null <<E2
[databases]
tasks_ro = host=127.0.0.1 port=$replica dbname=tasks
* = host=127.0.0.1 port=$primary
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pooler
unix_socket_dir =
auth_type = trust
auth_file = $data/users.txt
admin_users = tasks
pool_mode = transaction
max_prepared_statements = 200
default_pool_size = 25
server_login_retry = 1
E2
}

start_nodes() {
  local node
  for node in 0 1 2; do
    background "redis-$node" "$redis/redis-server" --port $((sessions + node)) --bind 127.0.0.1 --cluster-enabled yes \
      --cluster-config-file "$data/redis-$node.conf" --cluster-node-timeout 15000 --set-proc-title no --save '' --appendonly no \
      --dir "$data"
  done
  for node in 0 1 2; do
    await "redis-$node" "${as_user[@]}" "$redis/redis-cli" -p $((sessions + node)) ping
  done
}

await_cluster() {
  local node
  for node in 0 1 2; do
    await "redis-$node" cluster_is_whole $((sessions + node))
  done
}

start_redis() {
  start_nodes
  "${as_user[@]}" "$redis/redis-cli" --cluster create "127.0.0.1:$sessions" "127.0.0.1:$((sessions + 1))" \
    "127.0.0.1:$((sessions + 2))" --cluster-yes >"$state/cluster.log"
  await_cluster
}

cluster_is_whole() { "${as_user[@]}" "$redis/redis-cli" -p "$1" cluster info | grep -q '^cluster_state:ok'; }

configure_broker() {
  "${as_user[@]}" mkdir "$data/rabbitmq"
  # is_alive looks for the name in the arguments, and epmd takes none that could have it.
  "${as_user[@]}" ln -s "$epmd" "$data/epmd"
  "${as_user[@]}" tee "$data/rabbitmq/plugins" >/dev/null <<<'[].'
  "${as_user[@]}" tee "$data/rabbitmq/rabbitmq.conf" >/dev/null <<E2
listeners.tcp.1 = 127.0.0.1:$broker
default_user = tasks
default_pass = tasks
disk_free_limit.absolute = 16MB
log.file = false
log.console = true
log.console.level = warning
E2
}

# Erlang nodes find each other through epmd; one that RabbitMQ started by itself would stay behind.
start_epmd() { background epmd "$data/epmd" -port "$epmd_port" -address 127.0.0.1; }

# `detached` makes the script become the server rather than its parent.
launch_broker() {
  background broker env -u TMPDIR HOME="$data/rabbitmq" LANG=C.UTF-8 detached=yes \
    ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_DIST_PORT="$distribution" \
    RABBITMQ_NODENAME="test-$broker@localhost" RABBITMQ_CONF_ENV_FILE=/dev/null \
    RABBITMQ_CONFIG_FILE="$data/rabbitmq/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$data/rabbitmq/plugins" \
    RABBITMQ_MNESIA_BASE="$data/rabbitmq/data" RABBITMQ_LOG_BASE="$data/rabbitmq/log" \
    RABBITMQ_GENERATED_CONFIG_DIR="$data/rabbitmq/generated" \
    "$rabbitmq/bin/rabbitmq-server" -setcookie "$name" -kernel inet_dist_use_interface '{127,0,0,1}'
}

# It opens its port when it is ready.
await_broker() { await broker bash -c "exec 4<>/dev/tcp/127.0.0.1/$broker"; }

load() {
  # shellcheck source=/dev/null # written by start
  . "$state/settings" 2>/dev/null || die "the test services are not running; start them with: eval \"\$(dev/test-services.sh)\""
}

running() {
  local service services=(primary pooler redis-0 redis-1 redis-2)
  [ -f "$state/exports" ] || return 1
  if [ "$kind" = all ]; then services+=(replica broker); fi
  for service in "${services[@]}"; do
    is_alive "$(cat "$state/$service.pid" 2>/dev/null)" || return 1
  done
}

start() {
  if running; then
    cat "$state/exports"
    return
  fi
  stop
  find_tools
  find_user
  mkdir -p "$state"
  bin=$(local_postgres) pgbouncer=$(command -v pgbouncer || true) redis=$(dirname "$(command -v redis-server || echo /usr/bin/x)") data=$state/data
  epmd=$(command -v epmd || true)
  if [ -n "$jail" ]; then
    bin=$(cd "$jail" && newest usr/lib/postgresql/*/bin)
    bin=/$bin pgbouncer=/usr/sbin/pgbouncer redis=/usr/bin data=/srv/$name epmd=/usr/bin/epmd
  fi
  rm -rf "$jail$data"
  install -d -m 700 "$jail$data"
  if [ "$(id -u)" = 0 ]; then chown "$("${as_user[@]}" id -u):$("${as_user[@]}" id -g)" "$jail$data"; fi
  chmod 755 "$state"
  # Servers that can't enter the caller's directory say so again and again.
  cd "$jail$data/.."
  primary=$(free_ports 9)
  replica=$((primary + 1)) pooler=$((primary + 2)) sessions=$((primary + 3))
  broker=$((primary + 6)) distribution=$((primary + 7)) epmd_port=$((primary + 8))
  # -g: what a function sources would stay in it.
  declare -p jail as_user bin pgbouncer redis epmd data primary replica pooler sessions broker distribution epmd_port | sed 's/^declare/declare -g/' >"$state/settings"

  if [ "$kind" = all ]; then
    # It takes the longest.
    configure_broker
    start_epmd
    launch_broker
  fi
  start_primary
  if [ "$kind" = all ]; then start_replica; fi
  configure_pooler
  start_pooler
  start_redis
  if [ "$kind" = all ]; then await_broker; fi
  cat >"$state/exports" <<E2
export TASK_API_TEST_STATE=$state
export TASK_API_TEST_POSTGRES_URL=postgres://tasks:tasks@127.0.0.1:$pooler/tasks
export TASK_API_TEST_POSTGRES_READ_URL=postgres://tasks:tasks@127.0.0.1:$pooler/tasks_ro
export TASK_API_TEST_POSTGRES_ADMIN_URL=postgres://postgres@127.0.0.1:$primary/tasks
export TASK_API_TEST_POSTGRES_REPLICA_ADMIN_URL=postgres://postgres@127.0.0.1:$replica/tasks
export TASK_API_TEST_REDIS_URL=redis://127.0.0.1:$sessions
export TASK_API_TEST_AMQP_URL=amqp://tasks:tasks@127.0.0.1:$broker/%2f
E2
  cat "$state/exports"
}

# is_alive PID: and still what this script started, which has its directory among its arguments.
is_alive() { grep -q "$name" "/proc/$1/cmdline" 2>/dev/null; }

# kill_service NAME SIGNAL
kill_service() {
  local file=$state/$1.pid pid
  [ -f "$file" ] || return 0
  pid=$(cat "$file")
  rm -f "$file"
  is_alive "$pid" || return 0
  kill "-$2" "$pid"
  # PostgreSQL itself waits up to 5 s for its children.
  for _ in $(seq 400); do
    is_alive "$pid" || return 0
    sleep 0.05
  done
  kill -KILL "$pid" 2>/dev/null || true
  while is_alive "$pid"; do sleep 0.05; done
}

stop() {
  local service
  # QUIT is PostgreSQL's immediate shutdown: it takes its children along.
  for service in pooler replica primary; do kill_service $service QUIT; done
  for service in redis-0 redis-1 redis-2; do kill_service $service TERM; done
  for service in broker epmd; do kill_service $service KILL; done
  if [ -f "$state/settings" ]; then
    load
    rm -rf "$jail${data:?}"
  fi
  rm -rf "$state"
}

case "${1:-start} ${2:-}" in
  "start ") start ;;
  "stop ") stop ;;
  "pooler stop") load && kill_service pooler KILL ;;
  "pooler start") load && start_pooler ;;
  "primary stop") load && kill_service primary QUIT ;;
  "primary start") load && restart_primary ;;
  "sessions stop") load && for node in 0 1 2; do kill_service redis-$node KILL; done ;;
  "sessions start") load && start_nodes && await_cluster ;;
  "broker stop") load && kill_service broker KILL ;;
  "broker start") load && launch_broker && await_broker ;;
  *) die "usage: dev/test-services.sh [start | stop | (pooler | primary | sessions | broker) (start | stop)]" ;;
esac
