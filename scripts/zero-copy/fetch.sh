#!/usr/bin/env bash
# Fills the cache of make test-zero-copy: a QEMU with the igb device, a kernel whose igb and virtio-net have zero-copy,
# busybox and ethtool for the guest. Debian's packages, their signatures checked by apt, are unpacked into the cache;
# nothing is installed. Prints what it does. Exit code 75: it can't be had now (no network, not a Debian).
#
# The kernel is the newest in trixie-backports; REFEREE_GUEST_KERNEL=7.2.12+deb13-amd64 asks for that one.
set -euo pipefail

cache="$1"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=http://deb.debian.org/debian
# What the guest loads; some kernels have some of it built in.
modules="virtio_pci virtio_net virtio_blk igb"

later() {
    echo "test-zero-copy: $1" >&2
    exit 75
}

command -v apt-get >/dev/null || later "nothing in $cache yet, and only Debian's apt-get can fill it"
[ -e "$keyring" ] || later "nothing in $cache yet, and $keyring, which vouches for what would be fetched, is missing"

# What an interrupted run left; whoever calls this is alone.
rm -rf "$cache"/fetching-*
fresh="$cache/fetching-$$"
trap 'rm -rf "$fresh"' EXIT
mkdir -p "$fresh/apt/lists/partial" "$fresh/apt/archives/partial"
for suite in bookworm bookworm-backports trixie-backports; do
    echo "deb [signed-by=$keyring] $mirror $suite main"
done >"$fresh/apt/sources.list"

# apt with lists and archives of its own, so that this machine's are left alone.
options=(
    -o Dir::Etc::sourcelist="$fresh/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists="$fresh/apt/lists"
    -o Dir::Cache="$fresh/apt" -o Dir::Cache::archives="$fresh/apt/archives"
    -o Debug::NoLocking=1 -o APT::Sandbox::User="" -o Acquire::Languages=none -o Acquire::http::Timeout=20
    -o APT::Update::Post-Invoke-Success= -o DPkg::Post-Invoke= -o quiet=1
)

echo "fetching a guest's kernel and QEMU into $cache (140 MB, once)"
apt-get "${options[@]}" --error-on=any update >"$fresh/log" 2>&1 ||
    later "nothing in $cache yet, and no packages can be had: $(grep -m 1 '^[EW]:' "$fresh/log" || tail -n 1 "$fresh/log")"

kernel="${REFEREE_GUEST_KERNEL:-}"
if [ -z "$kernel" ]; then
    kernel=$(apt-cache "${options[@]}" search --names-only '^linux-modules-[0-9.]+\+deb13-amd64$' |
        sed 's/^linux-modules-//; s/ .*//' | sort -V | tail -n 1)
fi
[ -n "$kernel" ] || later "trixie-backports has no kernel that could be used"

mkdir "$fresh/packages"
(cd "$fresh/packages" &&
    apt-get "${options[@]}" download "linux-binary-$kernel" "linux-modules-$kernel" busybox-static/bookworm \
        ethtool/bookworm libmnl0/bookworm >"$fresh/log" 2>&1) || later "kernel $kernel can't be had: $(tail -n 1 "$fresh/log")"
# Only what this machine lacks: the libraries it has are of the release it runs.
"$(dirname "$0")/emulator.sh" "$cache" >/dev/null || apt-get "${options[@]}" --yes --no-install-recommends --download-only --target-release bookworm-backports \
    install qemu-system-x86 >"$fresh/log" 2>&1 || later "QEMU can't be had: $(grep -m 1 '^E:' "$fresh/log")"

echo "unpacking"
mkdir "$fresh/host" "$fresh/guest" "$fresh/modules"
for package in "$fresh"/apt/archives/*.deb; do
    [ ! -e "$package" ] || dpkg-deb --extract "$package" "$fresh/host"
done
for package in "$fresh"/packages/*.deb; do
    dpkg-deb --extract "$package" "$fresh/guest"
done

# Of a hundred megabytes of modules, those that are needed, each after what it depends on.
find "$fresh/guest" -name '*.ko*' >"$fresh/contents"
add_module() {
    local name=$1 path module="$fresh/modules/$1.ko" one
    if [ -e "$module" ]; then return; fi
    path=$(grep -E "/${name//[-_]/[-_]}\.ko(\.xz)?$" "$fresh/contents") || return 0 # built in
    case $path in
    *.xz) xz --decompress --stdout "$path" >"$module" ;;
    *) cp "$path" "$module" ;;
    esac
    for one in $(tr '\0' '\n' <"$module" | sed -n 's/^depends=//p' | tr ',' ' '); do add_module "$one"; done
    echo "$name" >>"$fresh/modules/order"
}
for one in $modules; do add_module "$one"; done

find "$fresh/guest" -name 'vmlinuz*' -exec mv {} "$fresh/vmlinuz" \;
echo "$kernel" >"$fresh/kernel"
rm -rf "$fresh/apt" "$fresh/packages" "$fresh/contents" "$fresh/log"
find "$fresh/guest" -type d -name modules -prune -exec rm -rf {} +
rm -rf "$cache/images"
mv "$fresh" "$cache/images"
