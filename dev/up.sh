#!/bin/bash
# From a bare machine to a platform that serves requests. Run again, it does only what is missing or has changed.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
began=$SECONDS

"$root/dev/platform.sh"
step "Command line" "1 s, 1 min to compile it" cargo build --release --manifest-path "$root/Cargo.toml" --workspace --bin taskplatform
step "Quickstart: apply" "1 s" kubectl --context "$context" apply --server-side --force-conflicts -f "$root/examples/quickstart.yaml"
printf '==> Quickstart: every component ready (90 s the first time)\n'
"$CARGO_TARGET_DIR/release/taskplatform" wait quickstart --context "$context" --namespace default --timeout 5m

loopback=127.0.0.1
[ "$ip_family" = ipv4 ] || loopback='[::1]'
url=http://$loopback:$gateway_port
# An account of its own each time: the address may be registered once only.
email=ada-$(date +%d%H%M%S)@example.com
cat <<EOF

TaskPlatform serves at $url ($(duration $((SECONDS - began)))). Try:

  curl -c /tmp/cookie $url/api/auth/register -H 'Content-Type: application/json' -d '{"email":"$email","password":"correct horse battery"}'
  curl -b /tmp/cookie $url/api/tasks -H 'Content-Type: application/json' -d '{"title":"Try TaskPlatform"}'
  curl -b /tmp/cookie $url/api/tasks

and, for the platform itself:

  kubectl --context $context get taskplatforms
EOF
