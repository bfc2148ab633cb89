#!/usr/bin/env bash
# Runs the whole test suite on a Debian machine with Rust: installs what is missing, starts a private PostgreSQL on
# 127.0.0.1, tests on both databases, and stops what it started. It fails loudly when something cannot be tested.
#
#   ./test.sh             everything
#   ./test.sh FILTER...   only what `cargo test` finds by these arguments
set -euo pipefail
cd "$(dirname "$0")"

fail() { printf 'test.sh: %s\n' "$*" >&2; exit 1; }

tests/install.sh
pg_bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)

# --- Python: the documented examples, clients, generators of clients, a fuzzer ------------------------------------------
work=$(mktemp -d)
venv="${CARGO_TARGET_DIR:-target}/test-python"
if ! cat tests/requirements.txt tests/constraints.txt | cmp -s - "$venv/installed.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements.txt -c tests/constraints.txt
  cat tests/requirements.txt tests/constraints.txt > "$venv/installed.txt"
fi

# AIML's clients want an older OpenAI SDK than the one that is tried here.
aiml_venv="${CARGO_TARGET_DIR:-target}/test-python-aiml"
if ! cmp -s tests/requirements-aiml.txt "$aiml_venv/installed.txt"; then
  python3 -m venv --clear "$aiml_venv"
  "$aiml_venv/bin/pip" install --quiet --disable-pip-version-check -r tests/requirements-aiml.txt
  cp tests/requirements-aiml.txt "$aiml_venv/installed.txt"
fi

# --- Node.js of its own, with clients, generators and linters -----------------------------------------------------------
clients="${CARGO_TARGET_DIR:-target}/test-clients"
if ! cmp -s tests/clients/package-lock.json "$clients/installed.json"; then
  mkdir -p "$clients"
  cp tests/clients/package.json tests/clients/package-lock.json "$clients/"
  (cd "$clients" && npm ci --no-audit --no-fund --loglevel=error)
  cp tests/clients/package-lock.json "$clients/installed.json"
fi

# --- what the console is looked at with ----------------------------------------------------------------------------------
console="${CARGO_TARGET_DIR:-target}/test-console"
if ! cmp -s tests/console/package-lock.json "$console/package-lock.json" || [ ! -d "$console/node_modules/axe-core" ]; then
  mkdir -p "$console"
  cp tests/console/package.json tests/console/package-lock.json "$console/"
  (cd "$console" && npm ci --no-audit --no-fund --loglevel=error)
fi

# --- newer PostgreSQL servers than Debian's -------------------------------------------------------------------------------
newer="${CARGO_TARGET_DIR:-target}/test-postgres"
if ! cmp -s tests/postgres/package-lock.json "$newer/installed.json"; then
  mkdir -p "$newer"
  cp tests/postgres/package.json tests/postgres/package-lock.json "$newer/"
  (cd "$newer" && npm ci --no-audit --no-fund --loglevel=error)
  cp tests/postgres/package-lock.json "$newer/installed.json"
fi

# --- a private PostgreSQL ---------------------------------------------------------------------------------------------
pg_user=postgres
run_pg() { if [ "$(id -u)" = 0 ]; then runuser -u "$pg_user" -- "$@"; else "$@"; fi; }
[ "$(id -u)" = 0 ] || pg_user=$(id -un)
# Its programs' folder and a name; it listens on 127.0.0.1 at the port $port.
start_pg() {
  local bin=$1 folder=$work/$2
  install -d -m 700 "$folder"
  [ "$(id -u)" != 0 ] || chown "$pg_user" "$folder"
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  (
    cd "$folder"
    run_pg "$bin/initdb" -D "$folder/data" -U imagegate -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
    run_pg "$bin/pg_ctl" -D "$folder/data" -w -l "$folder/log" -o \
      "-c listen_addresses=127.0.0.1 -p $port -k $folder -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=400" \
      start >/dev/null
  ) || { cat "$folder/log" >&2 2>/dev/null || true; fail "PostgreSQL did not start"; }
}
stop_pg() {
  if [ -f "$work/$2/data/postmaster.pid" ]; then
    run_pg "$1/pg_ctl" -D "$work/$2/data" -m immediate -w stop >/dev/null 2>&1 || true
  fi
}
stop_all() {
  stop_pg "$pg_bin" pg
  for major in 16 17 18; do stop_pg "$work/programs-$major/bin" "pg-$major"; done
  rm -rf "$work"
}
trap stop_all EXIT
chmod 755 "$work"
start_pg "$pg_bin" pg

export IMAGEGATE_TEST_POSTGRES="postgres://imagegate@127.0.0.1:$port/postgres"
export IMAGEGATE_TEST_PYTHON="$PWD/$venv/bin/python"
case "$venv" in /*) IMAGEGATE_TEST_PYTHON="$venv/bin/python" ;; esac
export IMAGEGATE_TEST_AIML_PYTHON="$PWD/$aiml_venv/bin/python"
case "$aiml_venv" in /*) IMAGEGATE_TEST_AIML_PYTHON="$aiml_venv/bin/python" ;; esac

case "$clients" in /*) ;; *) clients="$PWD/$clients" ;; esac
export IMAGEGATE_TEST_NODE_MODULES="$clients/node_modules"
case "$console" in /*) ;; *) console="$PWD/$console" ;; esac
export IMAGEGATE_TEST_CONSOLE_MODULES="$console/node_modules"

# --- the suite --------------------------------------------------------------------------------------------------------
# Most tests wait longer than they compute.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) * 3 / 2))}"
cargo test --locked "$@"

# The main path on newer servers too, where everything is asked for.
if [ "$#" = 0 ]; then
  for major in 16 17 18; do
    case "$(uname -m)" in aarch64) found="$newer/node_modules/postgres-$major-arm64" ;; *) found="$newer/node_modules/postgres-$major-x64" ;; esac
    [ -x "$found/native/bin/postgres" ] || fail "there is no PostgreSQL $major for $(uname -m) in $found"
    # Where its own user can read it.
    cp -r "$found/native" "$work/programs-$major"
    chmod -R a+rX "$work/programs-$major"
    start_pg "$work/programs-$major/bin" "pg-$major"
    echo "== the main path on PostgreSQL $major"
    IMAGEGATE_TEST_POSTGRES="postgres://imagegate@127.0.0.1:$port/postgres" \
      cargo test --locked --test api -- images::postgres spending::postgres recovery::postgres
    stop_pg "$work/programs-$major/bin" "pg-$major"
  done
fi
