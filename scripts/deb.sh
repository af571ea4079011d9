#!/usr/bin/env bash
# make deb: a Debian package of the programs, their man pages, completions, settings, unit and handbook.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need_cargo
need_build
command -v dpkg-shlibdeps >/dev/null || need dpkg-dev "finds out which libraries the package depends on"
install_missing
if ! cargo deb --version >/dev/null 2>&1; then
    echo "Installing cargo-deb (puts the package together)"
    cargo install --quiet --locked cargo-deb --no-default-features
fi

cargo build --release --locked -p referee -p wiregen
release=$(target_directory)/release

# What is made for the package lies where tools/referee/Cargo.toml looks for it.
stage=target/package
rm -rf "$stage"
mkdir -p "$stage"
"$release/referee" generate "$stage"
"$release/wiregen" generate "$stage/man1"
scripts/package-docs.sh "$stage/doc"
# Wireshark looks for extcap programs beside its libraries.
extcap=$stage/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)/wireshark/extcap
mkdir -p "$extcap" "$stage/bin"
ln -s ../../../../bin/referee "$extcap/referee"
ln -s "$release/referee" "$stage/bin/referee"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
cat >"$stage/changelog.Debian" <<TEXT
referee ($version-1) unstable; urgency=medium

  * Version $version; changelog.gz says what is new in it.

 -- The Referee authors <referee@localhost>  $(date -uR -d "@$(git log -1 --format=%ct 2>/dev/null || date +%s)")
TEXT

cargo deb -p referee --no-build --locked --quiet --strip --output "$stage/"
package=$(ls "$stage"/*.deb)
echo "$package"
dpkg-deb --info "$package" | grep -E '^ (Version|Architecture|Depends|Installed-Size):'
