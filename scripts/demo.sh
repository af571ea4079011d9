#!/usr/bin/env bash
# make demo: generates a minute of traffic in which four things are broken, replays it, and opens the proof of
# one of them in tshark. Nothing here knows the answers: all that is printed comes from the programs it calls.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need_cargo
need_build
need_tshark "shows that stock Wireshark reads the captures"
install_missing

echo "Building (release)"
cargo build --release --locked --quiet -p referee -p wiregen
PATH="$(target_directory)/release:$PATH"

folder=$(mktemp -d "${TMPDIR:-/tmp}/referee-demo.XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$folder"

# Shows a command, then runs it.
run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# tshark greets root with a warning on every call: what it says on standard error is shown only if it fails.
tshark() {
    command tshark "$@" 2>errors || { cat errors >&2; return 1; }
}

# The first "NAME":"VALUE" of the JSON lines on standard input.
first() {
    grep -o "\"$1\":\"[^\"]*\"" | sed -n "1{s/.*:\"//;s/\"//;p}"
}

run wiregen scenario demo demo.pcap
run referee replay --store store --incidents incidents.jsonl demo.pcap

# The story this program began with, if it was found; else whatever was.
incident=$(grep '"kind":"rst_after_idle"' incidents.jsonl | first id || true)
[ -n "$incident" ] || incident=$(first id <incidents.jsonl)
kind=$(grep "\"id\":\"$incident\"" incidents.jsonl | first kind)

printf '\nThe proof of one of them, %s, as a capture file of its own:\n' "$kind"
run referee captures get --store store --incident "$incident" -w "$kind.pcapng"

printf '\nWhat stock Wireshark makes of that file. The conversations in it:\n'
run tshark -n -r "$kind.pcapng" -q -z conv,tcp

stream=$(tshark -n -r "$kind.pcapng" -Y frame.comment -T fields -e tcp.stream | sed -n 1p)
flow="tcp.stream==$stream"
printf '\nThe first of them, from its handshake (long before anybody knew) to its end:\n'
run tshark -n -t r -r "$kind.pcapng" -Y "$flow" >packets
sed -n '1,/^\$/p' packets
sed -i '1,/^\$/d' packets
packets=$(wc -l <packets)
if [ "$packets" -gt 12 ]; then
    sed -n 1,5p packets
    printf '      … %d more …\n' $((packets - 9))
    tail -n 4 packets
else
    cat packets
fi | cut -c1-130

printf '\nThe comments Wireshark shows with its packets:\n\n'
tshark -n -r "$kind.pcapng" -Y "$flow && frame.comment" -T fields -E aggregator='|' -e frame.number -e frame.comment |
    sed 's/\t/\t\n/; s/|referee verdict/\nreferee verdict/g; s/\\n/\n/g' | sed 's/^\([0-9]*\)\t$/packet \1:/' | fold -s -w 110
