#!/usr/bin/env bash
# make demo: a network of real kernels that misbehaves, watched live; where none can be made (that takes root on
# Linux), a generated capture of the same troubles.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
. scripts/demo-common.sh
. scripts/demo-network.sh

demo_needs
why_not=
if [ "$(uname -s)" != Linux ]; then
    why_not="network namespaces are a thing of Linux"
elif [ "$(id -u)" -ne 0 ]; then
    why_not="only root may make network namespaces"
else
    network_needs
fi
install_missing
trap network_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
[ -n "$why_not" ] || why_not=$(network_missing)

if [ -z "$why_not" ]; then
    exec scripts/demo-live.sh
fi
echo "No live network ($why_not): a generated capture instead."
exec scripts/demo-replay.sh
