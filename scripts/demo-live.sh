#!/usr/bin/env bash
# make demo on a live network: namespaces with real kernel TCP stacks, a router that misbehaves in four ways, and
# Referee on its mirror port. What the router did is counted by its own packet filter and shown beside what
# Referee found; the two know nothing of one another. Fails unless just those four troubles are reported.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
. scripts/demo-common.sh
. scripts/demo-network.sh

demo_needs
network_needs
install_missing
demo_build

folder=$(mktemp -d "${TMPDIR:-/tmp}/referee-demo.XXXXXX")
# By name, the processes that run.
declare -A running=()

clean() {
    trap '' INT TERM
    local pid
    for pid in "${running[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${running[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    network_down
    rm -rf "$folder"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$folder"

# begin NAME SPACE COMMAND...: starts a process; its outputs go to NAME.out and NAME.err.
begin() {
    local name=$1 space=$2
    shift 2
    : >"$name.err"
    # A shell has its background processes ignore SIGINT, which is how Referee is told to stop.
    nsenter --net="/run/netns/$prefix-$space" env --default-signal=INT "$@" >"$name.out" 2>"$name.err" &
    running[$name]=$!
}

# await NAME LINE: until the process has said it.
await() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        if grep -qx "$2" "$1.err"; then return; fi
        kill -0 "${running[$1]}" 2>/dev/null || break
        sleep 0.05
    done
    echo "$1 did not come up:" >&2
    cat "$1.err" >&2
    exit 1
}

# end NAME [SIGNAL]: waits for its end, and has its exit code.
end() {
    local code=0
    [ -z "${2-}" ] || kill -"$2" "${running[$1]}" 2>/dev/null || true
    wait "${running[$1]}" || code=$?
    # Only now: if the wait is broken off, it must still be stopped.
    unset "running[$1]"
    return "$code"
}

serve_telemetry() {
    begin telemetry telemetry wiregen serve --seconds 90 streams=10.50.3.10:7000
    await telemetry listening
}

# act SECOND TEXT: waits for that second of the show, then says what begins.
act() {
    local left
    while left=$((begun + $1 - SECONDS)) && [ "$left" -gt 0 ]; do
        second "$left s to the next"
    done
    [ ! -t 1 ] || printf '\r\033[K'
    printf '  %2d s  %s\n' "$1" "$2"
}

# second TEXT: lets one pass; on a terminal a line that changes tells what the router has done so far.
second() {
    kill -0 "${running[referee]}" 2>/dev/null || failed
    heard
    if [ -t 1 ]; then
        printf '\r\033[K        %s; so far %s SYNs lost, %s resets made, %s ICMP kept back ' "$1" \
            "$(counted router router syns_lost)" "$(counted router router resets_made)" \
            "$(counted router router icmp_kept_back)"
    fi
    sleep 1
}

# What Referee has said since the last time.
lines_heard=0
heard() {
    local lines
    lines=$(wc -l <referee.out)
    [ "$lines" -gt "$lines_heard" ] || return 0
    [ ! -t 1 ] || printf '\r\033[K'
    sed -n "$((lines_heard + 1)),${lines}p" referee.out
    lines_heard=$lines
}

failed() {
    [ ! -t 1 ] || echo
    echo "referee run ended before its time:" >&2
    cat referee.out referee.err >&2
    exit 1
}

network_up
cat <<'TEXT'

       10.20.0.10                        +--- app        10.50.1.10  pages :8080, API :8443,
                                         |                           database :5432, backups :9000
         client ------------- router ----+--- uploads    10.50.2.10  :9000
                   :                     |
                   : copy of all that    +--- telemetry  10.50.3.10  :7000, 120 live connections
                   : passes here
                  tap: Referee

Each is a network namespace with the kernel's own TCP; client and servers talk as they would anywhere. But
  * the router forgets a connection that was silent for 11 s, and resets it when it speaks again;
  * from second 4 on, it loses 1 in 12 connections to the API, however often they knock;
  * from second 9 on, its link to uploads takes 1400 bytes at most, and the ICMP that would say so is kept back;
  * in second 22, telemetry crashes without a word, and comes back 2 s later.

TEXT

begin referee tap referee run -i tap --store store --incidents incidents.jsonl --ledger ledger.json
printf '$ referee run -i tap --store store --incidents incidents.jsonl --ledger ledger.json\n'
await referee ready
grep -vx ready referee.err || true
echo
begin app app wiregen serve --seconds 90 pages=10.50.1.10:8080 pages=10.50.1.10:8443 \
    queries=10.50.1.10:5432 uploads=10.50.1.10:9000
begin uploads uploads wiregen serve --seconds 90 uploads=10.50.2.10:9000
serve_telemetry
await app listening
await uploads listening
begin clients client wiregen talk --seconds 30 pages=10.50.1.10:8080 pages=10.50.1.10:8443 \
    queries=10.50.1.10:5432 uploads=10.50.1.10:9000 uploads=10.50.2.10:9000 streams=10.50.3.10:7000
begun=$SECONDS

act 0 "clients begin; half of the database's sessions will rest for 12 to 14 s"
act 4 "the router's table is full for 1 in 12 new connections to the API"
lose_connections
act 9 "a tunnel is put into the link to uploads: 1400 bytes"
narrow_link
act 13 "sessions that have rested ask the database again"
act 22 "telemetry crashes"
crash "${running[telemetry]}"
unset "running[telemetry]"
act 24 "telemetry is back"
recovered
serve_telemetry
act 30 "clients finish what they have begun"
while kill -0 "${running[clients]}" 2>/dev/null; do
    second "waiting for the last answers"
done
end clients || { cat clients.err >&2; exit 1; }

lost=$(connections_lost)
syns_lost=$(counted router router syns_lost)
resets_made=$(counted router router resets_made)
icmp_kept_back=$(counted router router icmp_kept_back)
resets_sent=$(counted telemetry host resets_sent)
end referee INT || failed
[ ! -t 1 ] || printf '\r\033[K'
printf '\nReferee is told to stop, and says all it knows:\n\n'
heard

# said KIND: how many flows its incidents name.
said() {
    # The first "flows" of a line is the incident's own; others belong to its evidence.
    grep "\"kind\":\"$1\"" incidents.jsonl |
        awk 'match($0, /"flows":[0-9]+/) { sum += substr($0, RSTART + 8, RLENGTH - 8) } END { print sum + 0 }'
}

printf '\nWhat was done, by the counters of those who did it, and what Referee saw from the mirror port:\n\n'
row='  %-58s %s\n'
# shellcheck disable=SC2059 # the format is a constant
{
    printf "$row" "router: $syns_lost SYNs of $lost connections lost" "syn_no_synack   $(said syn_no_synack) flows"
    printf "$row" "router: $resets_made resets made after 11 s of silence" "rst_after_idle  $(said rst_after_idle) flows"
    printf "$row" "router: $icmp_kept_back ICMP \"fragmentation needed\" kept back" \
        "pmtu_blackhole  $(said pmtu_blackhole) flows"
    printf "$row" "telemetry: $resets_sent resets sent by its kernel" "rst_storm       $(said rst_storm) flows"
}
printf '\nWhat the applications noticed:\n\n'
sed 's/^/  /; s/; /\n  /g' clients.out
printf '\n%s\n' "$(grep '^books ' referee.out)"

show_proof rst_after_idle

wanted='pmtu_blackhole rst_after_idle rst_storm syn_no_synack syn_unanswered_ratio'
found=$(grep -o '"kind":"[^"]*"' incidents.jsonl | cut -d'"' -f4 | sort -u | xargs)
[ "$found" = "$wanted" ] || { printf '\nReported: %s\nWanted:   %s\n' "$found" "$wanted" >&2; exit 1; }
grep -q '"balanced":true' ledger.json || { printf '\nThe books do not balance: %s\n' "$(cat ledger.json)" >&2; exit 1; }
printf '\nAll four troubles found, nothing else reported, books balanced, in %d s.\n' "$SECONDS"
