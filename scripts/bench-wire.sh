#!/usr/bin/env bash
# make bench-wire: `referee run` beside a bare AF_XDP loop on a veth pair of its own. Needs root. Arguments go to
# the program.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need_cargo
need_build
need_ip "makes the network namespace it runs in"
install_missing
if [ "$(id -u)" -ne 0 ]; then
    echo "make bench-wire loads XDP programs: run it as root" >&2
    exit 1
fi

build -p referee -p bench
programs=$(programs_directory)
namespace="referee-bench-$$"
folder=$(mktemp -d "${TMPDIR:-/tmp}/referee-bench.XXXXXX")
trap 'ip netns delete "$namespace" 2>/dev/null || true; rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ip netns add "$namespace"
# Entered with nsenter: `ip netns exec` and `ip -n` also change mounts, and can't in a chroot.
inside() {
    nsenter --net="/run/netns/$namespace" "$@"
}
inside ip link add wire numrxqueues 1 numtxqueues 1 type veth peer name tap numrxqueues 1 numtxqueues 1
inside sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6' 2>/dev/null || true
inside ip link set wire up
inside ip link set tap up
inside "$programs/wire" --tap tap --wire wire --referee "$programs/referee" --folder "$folder" "$@"
