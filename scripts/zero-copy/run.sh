#!/usr/bin/env bash
# make test-zero-copy: boots a machine under QEMU whose network cards can do what most test machines' can't: hand packets
# to AF_XDP without a copy. In it `referee run --zero-copy require` captures from an igb with one and with four
# queues, and from a virtio-net; every packet sent has to be received. No root is needed, nothing is installed, and nothing
# is written but a cache (${XDG_CACHE_HOME:-~/.cache}/referee/zero-copy) and a folder in ${TMPDIR:-/tmp}.
#
# It proves function and says nothing of speed: the machine is emulated to its last instruction.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
. scripts/need.sh

skip() {
    echo "skipped: make test-zero-copy: $1"
    exit 0
}
[ "$(uname -m)" = x86_64 ] || skip "the guest's kernel is one for x86-64"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/referee/zero-copy"
mkdir -p "$cache"
# Two at once would fetch twice.
exec 9>"$cache/lock"
flock 9
if [ ! -e "$cache/images/kernel" ]; then
    "$here/fetch.sh" "$cache" || { [ $? -eq 75 ] && skip "see above"; exit 1; }
fi
flock --unlock 9
images="$cache/images"

type -P tshark >/dev/null || skip "TShark, which reads what was captured, is missing: apt-get install tshark"
need_cargo
build -p referee -p wiregen
build -p tests --bin zero_copy
programs=$(programs_directory)

folder=$(mktemp -d "${TMPDIR:-/tmp}/referee-zero-copy.XXXXXX")
qemu=
end() {
    [ -z "$qemu" ] || kill -KILL "$qemu" 2>/dev/null || true
    [ -n "${KEEP:-}" ] || rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The guest's root: two programs, the libraries they need, and the traffic.
root="$folder/root"
mkdir -p "$root/bin" "$root/sbin" "$root/modules"
cp "$images/guest/bin/busybox" "$root/bin/"
cp "$images/guest/sbin/ethtool" "$root/sbin/"
cp "$programs/referee" "$programs/wiregen" "$root/bin/"
cp "$images"/modules/* "$root/modules/"
cp "$here/init" "$root/init"
cp "$here/set.toml" "$root/"
# On a library that both have, the guest uses this machine's: it was linked with those.
libraries() {
    LD_LIBRARY_PATH="$images/guest/usr/lib/x86_64-linux-gnu" ldd "$@" | sed -n 's/.*\(=> \|^\t\)\(\/[^ ]*\) .*/\2/p' | sort -u
}
libraries "$root/bin/referee" "$root/bin/wiregen" "$root/sbin/ethtool" | while read -r library; do
    case $library in
    "$images"/*) install -D "$library" "$root/lib/x86_64-linux-gnu/$(basename "$library")" ;;
    *) install -D "$library" "$root$library" ;;
    esac
done

echo "making traffic and the guest's root"
quietly() {
    "$@" 2>"$folder/making" || { cat "$folder/making" >&2 && exit 1; }
}
quietly "$programs/wiregen" live "$folder/all.pcap" --flows 256 --packets 0 --handshakes
quietly "$programs/wiregen" live "$root/traffic.pcap" --flows 256 --packets 20000
quietly "$programs/wiregen" scenario rst_midflow "$root/broken.pcap"
quietly tshark -r "$folder/all.pcap" -Y 'tcp.dstport == 443' -F pcap -w "$root/there.pcap"
quietly tshark -r "$folder/all.pcap" -Y 'tcp.srcport == 443' -F pcap -w "$root/back.pcap"
(cd "$root" && find . | "$images/guest/bin/busybox" cpio -o -H newc 2>/dev/null) >"$folder/initramfs"
truncate -s 64M "$folder/disk"

emulator=$("$here/emulator.sh" "$cache")
echo "booting Linux $(cat "$images/kernel") on an emulated machine"
# shellcheck disable=SC2086 # several words
$emulator \
    -machine q35 -accel tcg,thread=multi -cpu max -smp 4 -m 2048 -display none -no-reboot -nodefaults \
    -serial file:"$folder/console" -kernel "$images/vmlinuz" -initrd "$folder/initramfs" \
    -append "console=ttyS0 quiet panic=-1" -drive file="$folder/disk",format=raw,if=virtio \
    -netdev hubport,id=a,hubid=0 -device igb,netdev=a,mac=02:00:00:00:00:01,romfile= \
    -netdev hubport,id=b,hubid=0 -device virtio-net-pci,netdev=b,mac=02:00:00:00:00:02,romfile= \
    -netdev hubport,id=c,hubid=1 \
    -device virtio-net-pci,netdev=c,mac=02:00:00:00:00:03,romfile=,iommu_platform=on,disable-legacy=on,guest_tso4=off,guest_tso6=off,guest_ufo=off \
    -netdev hubport,id=d,hubid=1 -device virtio-net-pci,netdev=d,mac=02:00:00:00:00:04,romfile= \
    >"$folder/emulator" 2>&1 9>&- &
qemu=$!
for _ in $(seq 400); do
    kill -0 "$qemu" 2>/dev/null || break
    sleep 0.5
done
if kill -0 "$qemu" 2>/dev/null; then
    echo "the guest did not end within 200 s; its last words:" >&2
    tail -n 30 "$folder/console" >&2
    exit 1
fi
wait "$qemu" || true
qemu=
mkdir "$folder/out"
tar -x -f "$folder/disk" -C "$folder/out" 2>/dev/null || true
if [ ! -e "$folder/out/whole" ]; then
    echo "the guest did not come to its end; its last words:" >&2
    tail -n 30 "$folder/emulator" "$folder/console" >&2
    exit 1
fi
"$programs/zero_copy" "$folder/out"
