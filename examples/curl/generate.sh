#!/usr/bin/env bash
# What would it cost? Then the image itself, saved as lighthouse.jpg.
set -euo pipefail
url="${IMAGEGATE_URL:-http://127.0.0.1:8080}"
wish='{"model": "flux/dev", "prompt": "A lighthouse at dusk", "image_size": "landscape_16_9"}'
ask() { curl -sS --fail-with-body -H "Authorization: Bearer $IMAGEGATE_KEY" -H "Content-Type: application/json" "$@"; }
field() { python3 -c 'import functools, json, sys; print(functools.reduce(lambda value, key: value[int(key) if key.isdigit() else key], sys.argv[1].split("."), json.load(sys.stdin)))' "$1"; }

echo "at most $(ask "$url/v1/images/generations/quote" -d "$wish" | field price_usd) USD"

answer=$(ask "$url/v1/images/generations" -d "$wish")
curl -sS --fail -o lighthouse.jpg "$(field images.0.url <<<"$answer")"
echo "lighthouse.jpg cost $(field meta.usage.price_usd <<<"$answer") USD"
