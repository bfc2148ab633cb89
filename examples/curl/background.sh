#!/usr/bin/env bash
# A generation in the background: asked for, watched, fetched.
set -euo pipefail
url="${IMAGEGATE_URL:-http://127.0.0.1:8080}"
ask() { curl -sS --fail-with-body -H "Authorization: Bearer $IMAGEGATE_KEY" -H "Content-Type: application/json" "$@"; }
field() { python3 -c 'import functools, json, sys; print(functools.reduce(lambda value, key: value[int(key) if key.isdigit() else key], sys.argv[1].split("."), json.load(sys.stdin)))' "$1"; }

id=$(ask "$url/v1/images/generations" -d '{"model": "flux/dev", "prompt": "A harbour at dawn", "background": true}' | field id)
while generation=$(ask "$url/v1/images/generations/$id"); do
  state=$(field state <<<"$generation")
  echo "$id is $state"
  case "$state" in queued | running) sleep 0.3 ;; *) break ;; esac
done
[ "$state" = succeeded ]
curl -sS --fail -o harbour.jpg "$(field images.0.url <<<"$generation")"
echo "harbour.jpg cost $(field price_usd <<<"$generation") USD"
