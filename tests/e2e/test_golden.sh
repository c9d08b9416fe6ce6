#!/usr/bin/env bash
# Traces under virtual time: that of one guest byte for byte as it was stored (tests/golden/README.md), those of all
# others twice the same, and in what the guest can see the same under different engines. `--update`, as
# scripts/update-golden.sh calls it, stores what comes out instead.
source "$(dirname "$0")/lib.sh"

stored=$(realpath "$here/../golden")
kernel=$tmp/golden.elf
cp "${GOLDEN:?is the guest of the golden trace}" "$kernel"
options=(--engine trap --clock virtual --console none --no-userfaultfd)

# same NAME FILE FILE: byte for byte; else the first difference.
same() {
    if cmp -s "$2" "$3"; then
        ok "$1"
    else
        "$RING3" trace diff "$2" "$3" >difference 2>&1
        fail "$1" "$2 and $3 differ" difference
    fi
}

ring3 0 run "${options[@]}" --trace golden.jsonl "$kernel"
ring3 0 run "${options[@]}" --trace - "$kernel" && mv out golden.txt
if [ "${1-}" = --update ]; then
    [ $failed = 0 ] && cp golden.jsonl golden.txt "$stored" && git -C "$stored" --no-pager diff --stat -- .
    finish
fi
same "the golden trace" "$stored/golden.jsonl" golden.jsonl
diff -u "$stored/golden.txt" golden.txt >out
check "the golden trace as readable lines" [ ! -s out ]
[ $failed = 0 ] || echo "     if that is how it should be now: scripts/update-golden.sh, and commit what it changed"

# What the guest sees of it is the same under the translator: this guest looks at time only in its rdtsc and in hlt.
options=(--clock virtual --console none)
ring3 0 run --engine translate "${options[@]}" --trace translated.jsonl "$kernel" &&
    ring3 0 trace diff --guest golden.jsonl translated.jsonl &&
    ok "the golden trace and the translator's: $(cat out)"

# How a guest's run ends. (The trap engine cannot run all of them to their end.)
expected_status() { # ENGINE NAME
    case "$1 $2" in
    *" tour") echo 0 ;;
    "trap realmode" | "trap v8086") echo 3 ;; # "impossible"
    *) echo 1 ;;
    esac
}

# disturbed STATUS ARGUMENTS...: like `ring3`, while a stream of signals interrupts it.
disturbed() {
    local expected=$1 status
    shift
    repeat=("$RING3" "$@")
    rm -f pid
    unprivileged sh -c 'echo $$ >pid; exec "$@"' sh "${repeat[@]}" </dev/null >out 2>err &
    while [ ! -s pid ]; do sleep 0.001; done
    while kill -CONT "$(cat pid)" 2>/dev/null; do sleep 0.003; done
    wait $!
    status=$?
    [ $status = "$expected" ] || fail "ring3 $*, disturbed" "exit status $status, not $expected" out err
}

# two_runs ENGINE NAME: their traces, in first and second, are the same.
two_runs() {
    local engine=$1 name=$2 status
    status=$(expected_status "$engine" "$name")
    options=(--engine "$engine" --clock virtual --console none --timeout 300 --append quick)
    ring3 "$status" run "${options[@]}" --trace first "$GUESTS/$name.elf" || return
    disturbed "$status" run "${options[@]}" --trace second "$GUESTS/$name.elf"
    same "$name, $engine: two runs" first second
}

for image in "$GUESTS"/*.elf; do
    name=$(basename "$image" .elf)
    case $name in
    holes) ;;  # polls for seconds: half a gigabyte
    descriptors) ;; # it reads selectors, which is a hole
    escape) ;; # how far it comes is the host's business
    *) two_runs trap "$name" ;;
    esac
    two_runs translate "$name" || continue
    # The interpreter counts the same instructions: all that the guest can see, it sees at the same time.
    ring3 "$(expected_status interpret "$name")" run --engine interpret "${options[@]:2}" --trace second "$image" &&
        ring3 0 trace diff --guest first second && ok "$name, translate and interpret: $(cat out)"
done
finish
