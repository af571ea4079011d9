#!/bin/sh
# Asks `referee serve` everything its own description allows, and much that it does not, and fails at any 5xx, at a status,
# a type or a shape that the description has not. Needs schemathesis (pip install schemathesis); says so and ends well without.
#   scripts/fuzz-api.sh [EXAMPLES]          examples of each operation, 50 by default
#   LIVE=1 scripts/fuzz-api.sh [EXAMPLES]   as root: `referee run` in a namespace of its own, so that there is a run to ask
set -eu
cd "$(dirname "$0")/.."
st=${SCHEMATHESIS:-$(command -v st || true)}
if [ -z "$st" ]; then
    echo "fuzz-api: schemathesis is not there: python3 -m venv v && v/bin/pip install schemathesis; SCHEMATHESIS=v/bin/st" >&2
    exit 0
fi
st=$(realpath "$st")
referee=${REFEREE:-target/debug/referee}
[ -x "$referee" ] || cargo build -q -p referee
wiregen=${WIREGEN:-target/debug/wiregen}
[ -x "$wiregen" ] || cargo build -q -p wiregen

folder=$(mktemp -d)
server=
within=
space=referee-fuzz-$$
clean() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server"; } || true
    [ -z "$within" ] || ip netns del "$space"
    rm -rf "$folder"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$wiregen" scenario rst_after_idle "$folder/in.pcap" >/dev/null
"$referee" replay --store "$folder/store" "$folder/in.pcap" >/dev/null 2>&1
{
    printf '[api]\nlisten = "127.0.0.1:0"\nsocket = ""\ntls = "%s/tls"\nrequests_per_second = 100_000\n' "$folder"
    "$referee" token fuzz --role operate --file "$folder/token"
} >"$folder/referee.toml"
if [ -n "${LIVE:-}" ]; then
    ip netns add "$space"
    within="ip netns exec $space"
    ip -n "$space" link add tap0 type veth peer name wire0
    for link in lo tap0 wire0; do ip -n "$space" link set "$link" up; done
    $within "$referee" run -i tap0 --mode afpacket --store "$folder/store" --config "$folder/referee.toml" \
        --socket "$folder/control" >"$folder/out" 2>"$folder/said" &
else
    "$referee" serve --store "$folder/store" --config "$folder/referee.toml" 2>"$folder/said" &
fi
server=$!
for _ in $(seq 300); do
    grep -q 'ready$' "$folder/said" && break
    sleep 0.1
done
url=$(sed -n 's/.*api: \(https:[^,]*\),.*/\1/p' "$folder/said")
[ -n "$url" ] || { cat "$folder/said" >&2; exit 1; }

if [ -n "$within" ]; then
    $within python3 - "$folder/in.pcap" <<'PYTHON'
import socket, struct, sys

data = open(sys.argv[1], "rb").read()
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(("wire0", 0))
at = 24
while at < len(data):
    size = struct.unpack_from("<I", data, at + 8)[0]
    wire.send(data[at + 16 : at + 16 + size])
    at += 16 + size
PYTHON
fi

# What follows events never ends, which a fuzzer can't wait for.
description=$PWD/tools/referee/src/api/openapi.json
# shellcheck disable=SC2086 # empty, or words of its own
(cd "$folder" && $within "$st" run "$description" --url "$url" --tls-verify=false \
    -H "Authorization: Bearer $(cat "$folder/token")" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --exclude-path /api/v1/events --exclude-path /api/v1/captures/live -w 1 --request-timeout 30 \
    --phases examples,coverage,fuzzing -n "${1:-50}" --seed 1)
kill -0 "$server" || { echo "fuzz-api: the server is gone" >&2; cat "$folder/said" >&2; exit 1; }
