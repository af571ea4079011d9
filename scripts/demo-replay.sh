#!/usr/bin/env bash
# make demo where no network can be made: generates a minute of traffic in which four things are broken, replays
# it, and opens the proof of one of them in tshark. Nothing here knows the answers: all that is printed comes from
# the programs it calls.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
. scripts/demo-common.sh

demo_needs
install_missing
demo_build

folder=$(mktemp -d "${TMPDIR:-/tmp}/referee-demo.XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$folder"

run wiregen scenario demo demo.pcap
run referee replay --store store --incidents incidents.jsonl demo.pcap
# The story this program began with.
show_proof rst_after_idle
