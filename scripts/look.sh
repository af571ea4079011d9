#!/usr/bin/env bash
# make look: the page as a browser draws it, each place wide and narrow, dark and light: pictures into target/look, for
# eyes; and checks on what is in them. First over a real store by `referee serve`, then, for what needs a run, with
# made-up answers. LOOK=checks leaves the pictures out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need_cargo
need_build
command -v chromium >/dev/null || need chromium "draws the page"
command -v node >/dev/null || need nodejs "drives the browser, and gives the made-up answers"
command -v curl >/dev/null || need curl "asks for the link that logs the browser in"
install_missing

echo "Building"
cargo build --locked --quiet -p referee -p wiregen
target=$(target_directory)
programs="$target/debug"
folder=$(mktemp -d "${TMPDIR:-/tmp}/referee-look.XXXXXX")
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "A store, by replaying networks that misbehave"
for scenario in demo rst_injected "zero_window --ip 6"; do
    name=${scenario%% *}
    # shellcheck disable=SC2086 # its options are words of their own
    "$programs/wiregen" scenario $scenario "$folder/$name.pcap" >/dev/null
    "$programs/referee" replay --store "$folder/store" --incidents "$folder/$name.found" "$folder/$name.pcap"
done
# TCP wants a token to be there; the browser comes by a link instead.
cat >"$folder/referee.toml" <<TOML
[api]
tls = "$folder/tls"
requests_per_second = 1000
[[api.token]]
name = "look"
role = "operate"
sha256 = "$(head -c 32 /dev/urandom | sha256sum | cut -d' ' -f1)"
TOML
"$programs/referee" serve --store "$folder/store" --config "$folder/referee.toml" --socket "$folder/socket" \
    --listen 127.0.0.1:0 2>"$folder/serve" &
server=$!
until grep -q ready "$folder/serve"; do
    kill -0 "$server" 2>/dev/null || { cat "$folder/serve" >&2; exit 1; }
    sleep 0.1
done

incidents=()
for kind in rst_after_idle rst_injected pmtu_blackhole zero_window_stall; do
    id=$(sed -n "s/.*\"id\":\"\([0-9a-f]*\)\",\"kind\":\"$kind\".*/\1/p" "$folder"/*.found | head -1)
    incidents+=("$id:$kind")
done
# A link that logs the browser in, good once; the cookie serves for what follows.
login=$(curl -sS --unix-socket "$folder/socket" -X POST http://box/api/v1/session/codes)
member() {
    sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/" <<<"$login"
}
node tools/referee/src/web/test/look.mjs "$target/look" "$(member url)/?still#code=$(member code)" "${incidents[@]}"
