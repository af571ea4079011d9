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

# What every build of the programs calls, beside cargo itself.
need_build() {
    need_c_compiler
    need_bpf_tools
    need_certificates
}

# compiles TEXT [FLAG...]: whether the C compiler makes a program of it.
compiles() {
    local dir text=$1 status=0
    shift
    dir=$(mktemp -d)
    printf '%s\n' "$text" >"$dir/try.c"
    cc "$dir/try.c" -o "$dir/try" "$@" 2>/dev/null || status=1
    rm -r "$dir"
    return $status
}

# zstd's own C library is compiled during the build; Rust links through cc.
need_c_compiler() {
    if ! command -v cc >/dev/null; then
        need gcc "compiles the C libraries of zstd, libbpf and libxdp, and links"
        need libc6-dev "the C library's headers, for gcc"
    elif ! compiles '#include <stdlib.h>
int main(void) { return EXIT_SUCCESS; }'; then
        need libc6-dev "the C library's headers, for gcc"
    fi
}

# The XDP program is compiled by clang; libbpf and libxdp, which load it and speak AF_XDP, from their sources.
need_bpf_tools() {
    if ! bpf_compiles || ! has_libclang; then
        need clang "compiles the XDP program, and reads libxdp's headers"
    fi
    command -v make >/dev/null || need make "builds libbpf"
    command -v pkg-config >/dev/null || need pkg-config "libbpf's build asks it for libelf"
    command -v m4 >/dev/null || need m4 "libxdp's build fills in a template with it"
    if ! compiles '#include <gelf.h>
int main(void) { return elf_version(EV_CURRENT) == EV_NONE; }' -lelf; then
        need libelf-dev "libbpf reads compiled programs with it"
    fi
    if ! compiles '#include <zlib.h>
int main(void) { return zlibVersion() == 0; }' -lz; then
        need zlib1g-dev "libbpf links with it"
    fi
}

bpf_compiles() {
    local clang=${CLANG:-clang}
    command -v "$clang" >/dev/null && echo 'int zero(void) { return 0; }' |
        "$clang" -target bpf -O2 -g -x c -c - -o /dev/null 2>/dev/null
}

# The library behind clang, which comes with Debian's package but not with every clang.
has_libclang() {
    local place
    [ -z "${LIBCLANG_PATH:-}" ] || return 0
    for place in /usr/lib/llvm-*/lib /usr/lib /usr/lib64 /usr/local/lib "/usr/lib/$(uname -m)-linux-gnu"; do
        compgen -G "$place/libclang*.so*" >/dev/null && return 0
    done
    return 1
}

# cargo fetches crates over HTTPS.
need_certificates() {
    if [ ! -e "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" ] && [ -f /etc/debian_version ]; then
        need ca-certificates "cargo fetches crates over HTTPS"
    fi
}

need_tshark() {
    # Not `command -v`: a script may have a function of that name.
    type -P tshark >/dev/null || need tshark "$1"
}

need_ip() {
    ip -V >/dev/null 2>&1 || need iproute2 "$1"
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

# libFuzzer's hooks are an unstable option of the compiler.
need_nightly() {
    cargo +nightly --version >/dev/null 2>&1 && return
    if ! command -v rustup >/dev/null; then
        echo "A nightly compiler is not installed (fuzzing needs one); it comes with rustup: https://rustup.rs" >&2
        exit 1
    fi
    echo "Adding a nightly toolchain beside the one in use (fuzzing needs options only it has)"
    rustup toolchain install nightly --profile minimal
}

need_cargo_fuzz() {
    cargo fuzz --version >/dev/null 2>&1 && return
    echo "Installing cargo-fuzz (builds targets with libFuzzer and runs them)"
    cargo install --quiet --locked cargo-fuzz
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

# build ARGUMENT...: programs as people run them; with PROFILE=dev as the tests do, where it only matters that they run.
build() {
    cargo build --profile "${PROFILE:-release}" --locked --quiet "$@"
}

# Where `build` leaves them.
programs_directory() {
    local folder=${PROFILE:-release}
    [ "$folder" != dev ] || folder=debug
    echo "$(target_directory)/$folder"
}
