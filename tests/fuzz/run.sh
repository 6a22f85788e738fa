#!/usr/bin/env bash
# Fuzzes everything that comes from outside, a minute for each target.
#   tests/fuzz/run.sh [SECONDS] [TARGET...]
# Coverage-guided by libFuzzer on stable Rust (it needs a C++ compiler for libFuzzer itself; no
# sanitizer, since the targets have no unsafe code). With cargo-fuzz and a nightly compiler
#   cargo +nightly fuzz run --fuzz-dir tests/fuzz TARGET
# does the same with AddressSanitizer. Without a C++ compiler a blind mutation runner takes its
# place, and says so.
set -euo pipefail
cd "$(dirname "$0")"

seconds=60
if [[ ${1:-} =~ ^[0-9]+$ ]]; then seconds=$1; shift; fi
all="sip sdp uri rtp rtcp link document template wav"
targets=${*:-$all}
for target in $targets; do
    [[ " $all " == *" $target "* ]] || { echo "run.sh: unknown target '$target' (allowed: $all)" >&2; exit 2; }
done

if ! command -v c++ >/dev/null; then
    echo "No C++ compiler (apt: g++), so no libFuzzer: falling back to blind mutation, which finds less."
    # shellcheck disable=SC2086
    exec cargo run --quiet --release --bin fuzz-lite -- --seconds "$seconds" $targets
fi

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
folder=${CARGO_TARGET_DIR:-target}
# With --target the flags do not reach build scripts and procedural macros.
bins=$(printf -- "--bin %s " $targets)
# shellcheck disable=SC2086
cargo build --quiet --release --features libfuzzer --target "$host" $bins
failed=0
for target in $targets; do
    # New inputs go to target/, so that the committed corpus stays small.
    mkdir -p "$folder/corpus/$target" "artifacts/$target"
    if timeout $((seconds + 60)) "$folder/$host/release/$target" "$folder/corpus/$target" "corpus/$target" \
        -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=16384 \
        -artifact_prefix="artifacts/$target/" >"$folder/$target.log" 2>&1; then
        echo "$target: $(grep -E '^#[0-9]+.*DONE|^Done' "$folder/$target.log" | tail -1)"
    else
        failed=$((failed + 1))
        echo "$target: FAILED, see $folder/$target.log and artifacts/$target/"
        grep -E 'panicked|ERROR|timeout' -A2 "$folder/$target.log" | head -5
    fi
done
[ $failed = 0 ]
