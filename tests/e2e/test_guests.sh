#!/usr/bin/env bash
# Every teaching guest under ring3, on either clock, with holes exposed and patched, with both ways to write-protect
# page tables, and with the shadow checked at every exit. tests/guests_qemu.sh is the same under QEMU: a check that
# fails here and not there is ring3's fault.
source "$(dirname "$0")/lib.sh"

# what ring3 can do beyond the guests' default (guests/README.md)
words="limits alignment simd rmw reserved pdptes msr int1 x87 lock elements"

all_passed() { # FILE
    ! grep -q '^FAIL' "$1" && grep -q '^[1-9][0-9]* checks, 0 failed' "$1"
}

# guest NAME VARIANT OPTIONS...: passes all of its checks.
guest() {
    local name=$1 variant=$2 check_shadow=${watch---check-shadow}
    shift 2
    # Exits by the hundred thousand, each of which would check all of the translator's spaces.
    [ "$engine $name" = "translate mmio" ] && check_shadow=
    # isa-debug-exit: (0 << 1) | 1
    ring3 1 run --engine "$engine" ${check_shadow:+"$check_shadow"} --timeout 100 "$@" "$GUESTS/$name.elf" || return
    check "$name, $variant: $(tail -n 1 out)" all_passed out
}

# What no 64-bit host runs natively: the trap engine stops there, and says why.
declare -A impossible=(
    [realmode]="the guest went into real mode"
    [v8086]="the guest went into virtual-8086 mode"
)

engine=trap
for image in "$GUESTS"/*.elf; do
    name=$(basename "$image" .elf)
    case $name in
    tour | holes | escape) continue ;;
    esac
    if [ -n "${impossible[$name]:-}" ]; then
        ring3 3 run --engine trap --check-shadow --timeout 100 "$image" &&
            check "$name, trap engine: $(cat err)" grep -q "^ring3: ${impossible[$name]}" err
        continue
    fi
    if [ "$name" != descriptors ]; then # it reads selectors, which is one of the holes
        guest "$name" "real time" --clock host --append "$words"
        guest "$name" "virtual time, mprotect" --clock virtual --no-userfaultfd --append "$words"
    fi
    guest "$name" "holes patched" --clock virtual --holes patch --append "$words fpu"
    guest "$name" "holes patched, real time, mprotect" --clock host --holes patch --no-userfaultfd --append "$words fpu"
done

# The translator and the interpreter run all of them, the holes as well: nothing of the guest's code runs as it is.
for image in "$GUESTS"/*.elf; do
    name=$(basename "$image" .elf)
    [ "$name" = tour ] && continue
    for clock in host virtual; do
        for engine in interpret translate; do
            more="fpu sysenter far null rf cpuid"
            [ $engine = interpret ] && more+=" a20"
            guest "$name" "$engine, --clock $clock" --clock $clock --append "$words $more"
        done
    done
    guest "$name" "translate, mprotect" --no-userfaultfd --append "$words fpu sysenter far null rf cpuid"
    # The short ways of translated code and its calls are taken only then.
    watch='' guest "$name" "translate, nobody watches" --append "$words fpu sysenter far null rf cpuid"
done

for kernel in "" "$GUESTS/tour.elf"; do # the embedded one is the same
    for clock in host virtual; do
        for engine in trap translate; do
            ring3 0 run --engine $engine --clock $clock --check-shadow --timeout 100 ${kernel:+"$kernel"} || continue
            check "tour, $engine, --clock $clock: its last line" grep -q '^  7  the end' out
            check "tour, $engine, --clock $clock: $(cat err)" \
                grep -q '^ring3: halted with interrupts off, at 0008:.*(guest_main' err
        done
    done
done

# escape VARIANT ALLOWED OPTIONS...: which of its checks fail is the engine's list, a regular expression. (Under the
# interpreter none may: above.)
escape() {
    local variant=$1 allowed=$2 status
    shift 2
    repeat=("$RING3" run --check-shadow --timeout 100 "$@" "$GUESTS/escape.elf")
    unprivileged "${repeat[@]}" </dev/null >out 2>err
    status=$?
    grep '^FAIL' out | grep -vE "^FAIL ($allowed)" >unexpected
    if { [ $status = 1 ] || [ $status = 3 ]; } && grep -q '^[1-9][0-9]* checks, ' out && ! [ -s unexpected ]; then
        ok "escape, $variant: $(tail -n 1 out)"
    else
        fail "escape, $variant" "status $status; beyond what the engine gives away:" unexpected err
    fi
}
# The instructions of the host's processor are there, whatever CPUID says; and patches can be read (docs/holes.md).
native='[.]byte 0x|lzcnt is|tzcnt is'
escape "real time" "$native" --engine trap --clock host --append "$words"
escape "holes patched" "$native|sensitive instructions of the kernel read" --engine trap --clock virtual --holes patch --append "$words"

# Beside the reference the engines without holes come to the end of their guests, and the trap engine to a hole.
for engine in interpret translate; do
    ring3 0 run --lockstep --engine $engine --timeout 300 && check "tour in lockstep, $engine" grep -q '^  7  the end' out
    ring3 1 run --lockstep --engine $engine --timeout 300 --append "$words" "$GUESTS/interrupts.elf" &&
        check "interrupts in lockstep, $engine" all_passed out
done
ring3 1 run --lockstep --engine trap --timeout 300 "$GUESTS/holes.elf" &&
    check "the trap engine's first hole is told" grep -q 'the engine and the reference differ: ' err
ring3 2 run --lockstep --holes patch && check "patched code is not compared" grep -q 'no --holes patch' err

# The lesson of the holes: what was given away before is not given away after.
ring3 1 run --engine trap --holes patch --check-shadow --append "fpu sysenter far" "$GUESTS/holes.elf" &&
    check "holes patched: $(tail -n 1 out)" grep -q ' 0 failed: this machine is as it says$' out
check "holes patched: none is left" [ "$(grep -c '^HOLE' out)" = 0 ]
mv out patched

# Exposed, their number goes to isa-debug-exit: how many there are is the host CPU's business, not which ones there are
# on every CPU. With UMIP, Linux makes up what SIDT and SMSW say; without it they tell the host's: either way it is not
# the guest's.
expose=(run --engine trap --holes expose --check-shadow "$GUESTS/holes.elf")
unprivileged "$RING3" "${expose[@]}" </dev/null >out 2>err
status=$?
repeat=("$RING3" "${expose[@]}")
holes=$(grep -c '^HOLE' out)
if [ "$status" = $(((holes << 1 | 1) & 255)) ] && grep -q "checks, $holes failed: each a hole" out; then
    ok "holes exposed: $(tail -n 1 out)"
else
    fail "holes exposed" "$holes holes seen, exit status $status" out err
fi
for hole in "pushf after cli: IF" "popf sets IF: the timer's interrupt comes" "popf sets IOPL, and pushf shows it" \
    "sgdt: base" "sidt: base" "ring 3: sidt: base" "str" "smsw with TS set" "mov %cs, %eax" "push %cs; pop %eax" \
    "lar kernel code" "lsl kernel data" "verr kernel code"; do
    if grep -qF "  $hole: hardware has" out && grep -qE "^same  [^ ]+ +$hole$" patched; then
        ok "$hole: a hole, and closed by --holes patch"
    else
        fail "$hole" "is no hole, or not closed: exposed and patched it says" <(grep -hF "$hole" out patched)
    fi
done
finish
