#!/usr/bin/env bash
# make fuzz: any bytes at everything that reads bytes, each target for SECONDS. What it finds stays in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

seconds=${SECONDS_EACH:-60}
# No memory checker by default: all but a room or two of the program is safe Rust, and twice the inputs find more.
sanitizer=${SANITIZER:-none}
all=(file_reader decode pipeline rules compare)
read -r -a targets <<<"${TARGET:-${all[*]}}"
for target in "${targets[@]}"; do
    if [ ! -e "fuzz/fuzz_targets/$target.rs" ]; then
        echo "There is no target $target; there are: ${all[*]}" >&2
        exit 2
    fi
done

need_cargo
need_build
install_missing
need_nightly
need_cargo_fuzz

# cargo fuzz calls the compiler that cargo was called with.
nightly() { (cd fuzz && cargo +nightly "$@"); }

echo "Building ${targets[*]} (sanitizer: $sanitizer)"
for target in "${targets[@]}"; do
    nightly fuzz build --sanitizer "$sanitizer" "$target"
done
cargo run --locked --quiet -p tests --bin fuzz_seeds -- fuzz/corpus-seeds
# Words and signs of the rule language, as the shipped rules have them.
sed 's,//.*,,' rules/library/*.rhai | grep -oE '[a-z_]+(\.[a-z_0-9]+)*|[]!#$%&()*+,.:;<=>?{|}[-]+' | sort -u |
    sed 's/.*/"&"/' >fuzz/corpus-seeds/rules.dict
if [ -d ../shared/corpus/malformed ]; then
    find ../shared/corpus/malformed -type f -size -64k \( -name '*.pcap*' -o -name '*.gz' \) \
        -exec cp -t fuzz/corpus-seeds/file_reader {} + -exec cp -t fuzz/corpus-seeds/pipeline {} +
fi

found=0
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
    log=fuzz/artifacts/$target.log
    options=(-max_total_time="$seconds" -rss_limit_mb=2048 -timeout=5 -report_slow_units=5 -print_final_stats=1)
    [ "$target" != rules ] || options+=(-dict=corpus-seeds/rules.dict)
    # Longer inputs say little more and take long.
    case $target in
        decode) options+=(-max_len=400) ;;
        pipeline | compare) options+=(-max_len=2048) ;;
    esac
    before=$(find "fuzz/artifacts/$target" -type f | wc -l)
    nightly fuzz run --sanitizer "$sanitizer" "$target" "corpus/$target" "corpus-seeds/$target" -- "${options[@]}" \
        >"$log" 2>&1 && status=0 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    covered=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 || true)
    echo "$target: ${runs:-no} runs in $seconds s, ${covered:-nothing covered}"
    after=$(find "fuzz/artifacts/$target" -type f | wc -l)
    if [ "$status" -ne 0 ] || [ "$after" -gt "$before" ]; then
        found=1
        grep -E "panicked at|ERROR: libFuzzer|SUMMARY" -A 2 "$log" | sed -n 1,12p || tail -n 5 "$log"
        find "fuzz/artifacts/$target" -type f | tail -n "$((after - before))" | sed 's/^/  kept: /'
    fi
done
[ $found -eq 0 ] || cat <<'TEXT'

Again, one input:   cd fuzz && cargo +nightly fuzz run --sanitizer none TARGET artifacts/TARGET/FILE
Smaller:            cd fuzz && cargo +nightly fuzz tmin --sanitizer none TARGET artifacts/TARGET/FILE
As a regression:
  pipeline          cargo run -p tests --bin as_capture -- fuzz/artifacts/pipeline/FILE case.pcap
                    (then `make why CASE=case.pcap` explains it), and a folder in tests/cases with a case.toml that names it
  file_reader       the bytes, in tests/tests/malformed.rs or dataplane/src/source/file/tests.rs
  decode            the bytes behind the first three, in dataplane/src/decode/tests.rs
  rules             the text, in rules/tests/loading.rs or guards.rs
  compare           packets as short as they get, in tools/compare/src/tests.rs
Name the test after what was wrong, and add it before the fix.
TEXT
exit $found
