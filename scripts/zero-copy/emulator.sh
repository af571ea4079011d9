#!/usr/bin/env bash
# Prints how to call a QEMU that has an igb: this machine's (8.0 or later), or the one in the cache given. Exit code 1: there is none.
set -euo pipefail
unpacked="$1/images/host"
system=$(type -P qemu-system-x86_64 || true)
if [ -n "$system" ] && "$system" -device help 2>/dev/null | grep -c '^name "igb"' >/dev/null; then
    echo "$system"
elif [ -x "$unpacked/usr/bin/qemu-system-x86_64" ]; then
    echo "env LD_LIBRARY_PATH=$unpacked/usr/lib/x86_64-linux-gnu $unpacked/usr/bin/qemu-system-x86_64" \
        "-L $unpacked/usr/share/qemu -L $unpacked/usr/share/seabios"
else
    exit 1
fi
