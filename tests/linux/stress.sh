#!/bin/sh
# `stress SECONDS`, a program for Linux in the machine: processes, pipes, files and page tables that come and go, and
# `torture` (torture.c) beside them. The last line says that all went well, or what did not. Started by
# tests/e2e/test_linux.py.
fail() {
    echo "stress: FAILED: $1"
    exit 1
}

seconds() {
    cut -d. -f1 /proc/uptime
}

cd /tmp || exit 1
end=$(($(seconds) + $1))
rounds=0
torture "$1" >torture.log &
torture=$!
while [ "$(seconds)" -lt "$end" ]; do
    (seq 1 2000 | sort -r | md5sum >>sums) &
    sums=$!
    dd if=/dev/urandom of=data bs=64k count=16 2>/dev/null || fail "dd"
    gzip -c data | gunzip | cmp - data || fail "what gunzip made is not what gzip got"
    wait $sums || fail "seq, sort or md5sum"
    rounds=$((rounds + 1))
done
wait $torture || fail "$(tail -n 1 torture.log)"
[ "$(uniq sums | wc -l)" = 1 ] || fail "two checksums of the same: $(sort sums | uniq -c)"
[ "$(wc -l <sums)" = $rounds ] || fail "a checksum is missing"
echo "stress: all is well; $rounds rounds"
