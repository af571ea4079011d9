#!/usr/bin/env bash
# make lint: the format and the lints, warnings refused.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need_cargo
need_component fmt rustfmt
need_component clippy clippy
need_build
install_missing

cargo fmt --all -- --check
cargo clippy --workspace --all-targets --locked -- -D warnings
