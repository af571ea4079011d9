#!/usr/bin/env bash
# make bench: what a packet costs here, beside a floor measured in the same run. Arguments go to the program.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need_cargo
need_build
install_missing

build -p bench --bin bench
"$(programs_directory)/bench" "$@"
