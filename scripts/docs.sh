#!/usr/bin/env bash
# make docs: writes docs/rules.md anew. The test that writes it is the one that otherwise compares it.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need_cargo
need_c_compiler
need_certificates
install_missing

REGENERATE=1 cargo test --locked --quiet -p rules --lib docs_page_is_up_to_date
echo "docs/rules.md is up to date"
