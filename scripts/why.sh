#!/usr/bin/env bash
# make why CASE=name: replays one case of the tests and explains what was found, packet by packet.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

if [ -z "${CASE:-}" ]; then
    echo "Which case? make why CASE=name; the cases are the folders in tests/cases:" >&2
    find tests/cases -mindepth 1 -maxdepth 1 -type d -printf '  %f\n' 2>/dev/null | sort >&2
    exit 2
fi
need_cargo
need_build
install_missing

cargo run --locked --quiet -p tests --bin why -- "$CASE"
