#!/bin/bash
# What a change must pass before its tests run.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"

shell_scripts() {
  if command -v shellcheck >/dev/null; then shellcheck -x -P SCRIPTDIR .ci/run bench/*.sh dev/*.sh dev/*/*.sh images/collect images/gateway/gateway; else say "shellcheck is not installed: skipped"; fi
}

chart() {
  if command -v helm >/dev/null; then helm lint --strict charts/taskplatform; else say "helm is not there yet: skipped"; fi
}

# A library of which the tests need more features than the programs is compiled twice, with all that depends on it.
libraries() { # [ARGUMENT...]: those of all crates, with their features
  cargo tree --locked --workspace "$@" --prefix none --format '{p} {f}' | sed 's/ (\*)$//' | sort -u
}
one_build() {
  local twice
  twice=$(comm -23 <(libraries --edges no-dev) <(libraries))
  [ -z "$twice" ] || die "with other features in tests: $twice; name in tests/Cargo.toml what the tests need"
}

step "Format" "1 s" cargo fmt --check
step "Shell scripts" "5 s" shell_scripts
step "Chart" "1 s" chart
step "One build of each library" "1 s" one_build
# In the release profile, as the images and the tests: one build of procedural macros and build scripts serves all.
step "Clippy" "10 s, 4 min with a cold cache" cargo clippy --release --locked --workspace --all-targets -- -D warnings
