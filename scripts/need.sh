# Sourced by the other scripts. Each need_* tries out one thing the build or the run calls and notes the
# Debian package that brings it if it isn't there; install_missing then says what it installs, why, and does.

missing=()
why=()

# need PACKAGE REASON
need() {
    missing+=("$1")
    why+=("  $1: $2")
}

need_cargo() {
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null; then
        cat >&2 <<TEXT
cargo is not installed. Referee needs Rust $wanted or later, which is newer than Debian's own package:
  apt-get install curl ca-certificates
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y
  . "\$HOME/.cargo/env"
TEXT
        exit 1
    fi
    have=$(rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | sed -n 1p)" != "$wanted" ]; then
        echo "Rust $have is too old; Referee needs $wanted or later: rustup update stable" >&2
        exit 1
    fi
}

# zstd's own C library is compiled during the build; Rust links through cc.
need_c_compiler() {
    local dir
    dir=$(mktemp -d)
    printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' >"$dir/try.c"
    if ! command -v cc >/dev/null; then
        need gcc "compiles zstd's C library, and links"
        need libc6-dev "the C library's headers, for gcc"
    elif ! cc "$dir/try.c" -o "$dir/try" 2>/dev/null; then
        need libc6-dev "the C library's headers, for gcc"
    fi
    rm -r "$dir"
}

# cargo fetches crates over HTTPS.
need_certificates() {
    if [ ! -e "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" ] && [ -f /etc/debian_version ]; then
        need ca-certificates "cargo fetches crates over HTTPS"
    fi
}

need_tshark() {
    command -v tshark >/dev/null || need tshark "$1"
}

need_iproute2() {
    command -v ip >/dev/null || need iproute2 "$1"
}

need_nftables() {
    command -v nft >/dev/null || need nftables "$1"
}

need_ethtool() {
    command -v ethtool >/dev/null || need ethtool "$1"
}

# need_component COMMAND COMPONENT: a part of the Rust toolchain that rustup may have left out.
need_component() {
    cargo "$1" --version >/dev/null 2>&1 && return
    if ! command -v rustup >/dev/null; then
        echo "cargo $1 is not installed; it comes with Rust from https://rustup.rs" >&2
        exit 1
    fi
    echo "Adding $2 to the Rust toolchain (cargo $1 is called by this command)"
    rustup component add "$2"
}

# As root, with sudo, or not at all.
install_missing() {
    [ ${#missing[@]} -gt 0 ] || return 0
    printf 'Missing, and to be installed with apt-get:\n'
    printf '%s\n' "${why[@]}"
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        echo "There is no apt-get here: install them (or what your system calls them) and call this again." >&2
        exit 1
    elif [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "That needs root: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    local log
    log=$(mktemp)
    # The environment is set behind sudo, which would drop it.
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y)
    if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        cat "$log" >&2
        rm "$log"
        echo "apt-get could not install: ${missing[*]}" >&2
        exit 1
    fi
    rm "$log"
    missing=()
}

# Where cargo puts what it builds, whatever the environment and its settings say.
target_directory() {
    cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
