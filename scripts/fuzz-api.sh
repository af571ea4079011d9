#!/bin/sh
# Asks `referee serve` everything its own description allows, and much that it does not, and fails at any 5xx, at a status,
# a type or a shape that the description has not. Needs schemathesis (pip install schemathesis); says so and ends well without.
#   scripts/fuzz-api.sh [EXAMPLES]     examples of each operation, 50 by default
set -eu
cd "$(dirname "$0")/.."
st=${SCHEMATHESIS:-$(command -v st || true)}
if [ -z "$st" ]; then
    echo "fuzz-api: schemathesis is not there: python3 -m venv v && v/bin/pip install schemathesis; SCHEMATHESIS=v/bin/st" >&2
    exit 0
fi
referee=${REFEREE:-target/debug/referee}
[ -x "$referee" ] || cargo build -q -p referee
wiregen=${WIREGEN:-target/debug/wiregen}
[ -x "$wiregen" ] || cargo build -q -p wiregen

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT INT TERM

"$wiregen" scenario rst_after_idle "$folder/in.pcap" >/dev/null
"$referee" replay --store "$folder/store" "$folder/in.pcap" >/dev/null 2>&1
{
    printf '[api]\nlisten = "127.0.0.1:0"\nsocket = ""\ntls = "%s/tls"\nrequests_per_second = 100_000\n' "$folder"
    "$referee" token fuzz --role operate --file "$folder/token"
} >"$folder/referee.toml"
"$referee" serve --store "$folder/store" --config "$folder/referee.toml" 2>"$folder/said" &
server=$!
for _ in $(seq 300); do
    grep -q 'ready$' "$folder/said" && break
    sleep 0.1
done
url=$(sed -n 's/.*api: \(https:[^,]*\),.*/\1/p' "$folder/said")
[ -n "$url" ] || { cat "$folder/said" >&2; exit 1; }

# What follows events never ends, which a fuzzer can't wait for.
"$st" run tools/referee/src/api/openapi.json --url "$url" --tls-verify=false \
    -H "Authorization: Bearer $(cat "$folder/token")" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --exclude-path /api/v1/events --exclude-path /api/v1/captures/live -w 1 --request-timeout 30 --phases examples,coverage,fuzzing -n "${1:-50}" --seed 1
kill -0 "$server" || { echo "fuzz-api: the server is gone" >&2; cat "$folder/said" >&2; exit 1; }
