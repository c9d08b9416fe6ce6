#!/usr/bin/env bash
# Traces under virtual time: that of one guest byte for byte as it was stored (tests/golden/README.md), and those of
# all others twice the same. `--update`, as scripts/update-golden.sh calls it, stores what comes out instead.
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

# A second run that signals interrupt all the time has the same trace. (holes polls for seconds: half a gigabyte.)
for image in "$GUESTS"/*.elf; do
    name=$(basename "$image" .elf)
    [ "$name" = holes ] && continue
    status=1
    [ "$name" = tour ] && status=0
    options=(--engine trap --clock virtual --console none --timeout 100)
    ring3 $status run "${options[@]}" --trace first "$image" || continue
    rm -f pid
    unprivileged sh -c 'echo $$ >pid; exec "$@"' sh "$RING3" run "${options[@]}" --trace second "$image" \
        </dev/null >out 2>err &
    while [ ! -s pid ]; do sleep 0.001; done
    while kill -CONT "$(cat pid)" 2>/dev/null; do sleep 0.003; done
    wait $!
    same "$name: two runs" first second
done
finish
