#!/usr/bin/env bash
# Measures the gateway under load beside a floor: builds the release binary and benches/load, starts a private PostgreSQL
# with default durability, runs the loads, prints the tables of docs/performance.md, and stops what it started.
#
#   ./bench.sh                     about two minutes after building
#   ./bench.sh --quick             the loads of 16 and 64 clients for two seconds each: half a minute
#   ./bench.sh --full              every load of the tables, overload, 16 MB answers and inputs, 10,000 waiting requests
#   ./bench.sh --extras            only overload, 16 MB answers and inputs, 10,000 waiting requests
#   ./bench.sh --rounds 3          medians of three rounds
#   ./bench.sh --soak 60           memory at 64 clients, a line each minute
#   ./bench.sh --rows floor,gateway --seconds 10
#   ./bench.sh --load 64:20        only 64 clients, with images that take 20 ms
#
# IMAGEGATE_BENCH_PROFILE=measure takes a build that is quicker to make; IMAGEGATE_BENCH_WORK is a folder on the disk to
# measure on.
set -euo pipefail
cd "$(dirname "$0")"

fail() { printf 'bench.sh: %s\n' "$*" >&2; exit 1; }
pg_bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1 || true)
[ -x "$pg_bin/initdb" ] || fail "PostgreSQL is missing: apt-get install postgresql"
command -v cargo >/dev/null || fail "Rust is missing: install it from https://rustup.rs"

profile=${IMAGEGATE_BENCH_PROFILE:-release}
target=${CARGO_TARGET_DIR:-target}
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac
cargo build --locked --quiet --profile "$profile" --bin imagegate
(cd benches/load && CARGO_TARGET_DIR="$target/load" cargo build --locked --quiet --release)

# Ten thousand requests are twenty thousand sockets.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

work=$(mktemp -d -p "${IMAGEGATE_BENCH_WORK:-${TMPDIR:-/var/tmp}}")
pg_user=$(id -un)
[ "$(id -u)" != 0 ] || pg_user=postgres
run_pg() { if [ "$(id -u)" = 0 ]; then runuser -u "$pg_user" -- "$@"; else "$@"; fi; }
stop_all() {
  if [ -f "$work/pg/data/postmaster.pid" ]; then
    run_pg "$pg_bin/pg_ctl" -D "$work/pg/data" -m fast -w stop >/dev/null 2>&1 || true
  fi
  rm -rf "$work"
}
trap stop_all EXIT
chmod 755 "$work"
install -d -m 700 "$work/pg"
[ "$(id -u)" != 0 ] || chown "$pg_user" "$work/pg"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(
  cd "$work/pg"
  run_pg "$pg_bin/initdb" -D "$work/pg/data" -U imagegate -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
  run_pg "$pg_bin/pg_ctl" -D "$work/pg/data" -w -l "$work/pg/log" \
    -o "-c listen_addresses=127.0.0.1 -p $port -k $work/pg" start >/dev/null
) || { cat "$work/pg/log" >&2 2>/dev/null || true; fail "PostgreSQL did not start"; }

case "$profile" in release) folder=release ;; *) folder=$profile ;; esac
"$target/load/release/load" --gateway "$target/$folder/imagegate" --server "postgres://imagegate@127.0.0.1:$port/" \
  --postmaster "$(head -n 1 "$work/pg/data/postmaster.pid")" --work "$work" "$@"
