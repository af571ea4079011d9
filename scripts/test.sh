#!/usr/bin/env bash
# make test: everything that must hold before a change goes in. Ends with one line that sums up what cargo said.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need_cargo
need_component fmt rustfmt
need_component clippy clippy
need_build
need_tshark "the tests compare with it, and open captures in it"
need_ip "makes the network namespaces and interfaces of the live tests"
if [ "$(id -u)" = 0 ]; then
    need_nftables "is the router that misbehaves in the live tests"
    need_ethtool "makes their interfaces like wires"
fi
install_missing

scripts/lint.sh

if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked check
else
    echo "skipped: cargo deny (licences and advisories of dependencies), because it is not installed"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
status=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

# "test result: ok. 12 passed; 0 failed; 1 ignored; …", once for each test binary.
awk '/^test result: / {
    for (i = 2; i <= NF; i++) {
        if ($i ~ /^passed/) passed += $(i - 1)
        if ($i ~ /^failed/) failed += $(i - 1)
        if ($i ~ /^ignored/) ignored += $(i - 1)
    }
    binaries++
}
END { printf "%d passed, %d failed, %d ignored in %d test binaries\n", passed, failed, ignored, binaries }' "$log"
exit "$status"
