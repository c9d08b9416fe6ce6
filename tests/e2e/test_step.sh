#!/usr/bin/env bash
# ring3 step from a pipe, from -x and from --commands: what it shows, what it does on mistakes, and the golden rule:
# however a guest is stepped, it has the trace that it has when it is run. (On a terminal: test_step_terminal.py.)
source "$(dirname "$0")/lib.sh"

# step STATUS ARGUMENTS...: commands on standard input; output in the files out and err.
step() {
    local expected=$1 status
    shift
    cat >commands
    repeat=("$RING3" step "$@" "<commands")
    unprivileged "$RING3" step "$@" <commands >out 2>err
    status=$?
    [ $status = "$expected" ] && return
    fail "ring3 step $*" "exit status $status, not $expected" out err
    return 1
}

has() {
    grep -qE -- "$1" out
}

# ---- the golden rule ----

# same_trace GUEST HOW OPTIONS...: commands on standard input.
same_trace() {
    local name=$1 how=$2
    shift 2
    rm -f stepped.jsonl
    step 0 --trace stepped.jsonl "$@" "$GUESTS/$name.elf" || return
    ring3 0 trace diff run.jsonl stepped.jsonl && ok "$name ${*}: $how: the trace of the run"
}

traced_run() {
    local name=$1
    shift
    rm -f run.jsonl
    unprivileged "$RING3" run --engine trap --clock virtual --trace run.jsonl "$@" "$GUESTS/$name.elf" </dev/null >out 2>err
    [ -s run.jsonl ] || fail "$name" "no trace of its run" err
}

for name in tour privileged holes selfmod; do
    for holes in expose patch; do
        traced_run $name --holes $holes
        same_trace $name "one instruction at a time" --holes $holes <<<"step 1000000000"
        same_trace $name "one trap at a time" --holes $holes <<<"trap 1000000000"
        same_trace $name "from breakpoint to breakpoint" --holes $holes <<'END'
break guest_main
break trap_dispatch
break print
break on cli
continue 1000000000
END
    done
done
traced_run paging --no-userfaultfd # breakpoints on pages whose mappings come and go
same_trace paging "from breakpoint to breakpoint" --no-userfaultfd <<'END'
break guest_main
break space_map
break trap_dispatch
break 40000000
continue 1000000000
END
step 0 --check-shadow "$GUESTS/paging.elf" <<'END' && check "the shadow's invariant holds between steps" has '^breakpoint 1$'
break trap_dispatch
continue 20
step 50
END

# ---- what it shows ----

step 0 "$GUESTS/tour.elf" <<'END'
until guest_main
bt
break on cli
continue
why
regs
x/2i $eip
x/4b $eip
xp/2w $eip
walk guest_main
delete
until on_page_fault
walk 40000000
break on filled user
c
why
END
check "until: stops before the place" has '^=> 0008:[0-9a-f]{8} guest_main +55 +push ebp$'
check "bt: who called" has '^#1 +[0-9a-f]{8} guest_setup\+0x'
check "break on cli: told" has '^ +1 +on cli, met 0 times$'
check "continue: the trap in one line" has '^ +[0-9]+ +0008:[0-9a-f]{8} guest_main\+0x[0-9a-f]+ +cli +#GP\(0\) +emulated$'
check "continue: which breakpoint" has '^breakpoint 1: on cli$'
check "why: the instruction" has '^  instruction +0008:[0-9a-f]{8} guest_main\+0x[0-9a-f]+ +cli, at CPL 0$'
check "why: the signal" has '^  signal +SIGSEGV, trap number 13, error code 0000, CS:EIP'
check "why: its cost" has '^ +guest entered, ran, faulted.* [1-9][0-9]* ns$'
check "why: the class" has '^  class +CLI: control-sensitive, privileged'
check "why: the cost of handling" has '^  handling +emulated on the virtual state +[1-9][0-9]* ns$'
check "why: where it goes on" has '^  resume +0008:[0-9a-f]{8} guest_main\+0x'
check "regs: virtual and real" has '^cpl +0 +3$'
check "regs: the interrupt flag is virtual" has '^eflags  [0-9a-f]{8} iopl=0[^I]* +[0-9a-f]{8} iopl=0.* IF'
check "regs: segments" has '^cs +0008 00000000\+ffffffff code32 dpl 0 +[0-9a-f]{3}[7f] [0-9a-f]{8}\+ffffffff code32 dpl 3$'
check "x/i: the next instruction is marked" has '^=> [0-9a-f]{8} guest_main\+0x'
check "x/b: bytes" has '^[0-9a-f]{8}  [0-9a-f]{2} [0-9a-f]{2} [0-9a-f]{2} [0-9a-f]{2} \|.{4}\|$'
check "walk: paging off" has 'paging is off'
check "walk: not present" has '^  PDE +256 at [0-9a-f]{8} = 00000000  not present$'
check "walk: so the guest's own fault" has "^  guest +an access is the guest's own #PF: not present$"
check "walk: and not in the shadow" has '^  shadow +not mapped: and must not be$'
check "why: a fill" has '^  fault +#PF at [0-9a-f]{8}: the CPU found no mapping that allows this'

step 0 "$GUESTS/paging.elf" <<'END'
until check
x/4i $eip
walk $esp
walk $cr3
walk $eip
trap 3
END
check "walk: levels" has '^  PDE +[0-9]+ at [0-9a-f]{8} = [0-9a-f]{8}  writable'
check "walk: the shadow" has '^  shadow +mapped at host address [0-9a-f]{8} to RAM page [0-9a-f]+, (writable|read-only), for'

step 0 --holes patch "$GUESTS/holes.elf" <<'END'
break on popf
continue
why
END
check "why: a patched hole" has 'popfd? ?\(patched: what ran was HLT\)'

step 0 "$GUESTS/tour.elf" <<'END'
trace on
trap 2
continue
help
help kinds
END
check "trace on: the events, and the guest's text between" has '^        [|] ring3 tour: a small kernel'
check "the end is told" has '^the machine has stopped: halted with interrupts off$'
check "no control codes" [ "$(LC_ALL=C tr -d '\n -~\200-\377' <out | wc -c)" = 0 ]

# ---- sources, mistakes, exit status ----

ring3 0 step -x "until guest_main" -x regs "$GUESTS/tour.elf" &&
    check "-x: commands of the command line" has '^\(ring3\) regs$'
printf 'until guest_main\n# a comment\n\nx/2i $eip' >script
ring3 0 step --commands script -x trap && check "--commands: after those of -x" has '^\(ring3\) x/2i \$eip$'
step 0 </dev/null && check "nothing to do: where it stands" has '^=> 0008:[0-9a-f]{8} _start'
step 2 <<<$'trap\nnonsense\ntrap' && check "a mistake: where, and what" grep -q \
    '^ring3: standard input, line 2: no command is called nonsense' err
check "a mistake: nothing after it is done" [ "$(grep -c '(ring3) trap' out)" = 1 ]
printf 'trap\nbreak nothere\n' >script
ring3 2 step --commands script
check "a mistake in a file: where" grep -q '^ring3: script, line 2: nothere is neither a symbol nor' err
step 2 <<<$'continue\nstep' && check "stepping what has stopped is a mistake" grep -q 'line 2: the machine has stopped: ' err
printf 'trap\0nonsense\n\377\376\n' >binary
step 2 <binary && check "bytes that are no commands" grep -q '^ring3: standard input, line 2: no command' err
ring3 1 step --commands nofile
check "--commands: a file that is not there" grep -q '^ring3: nofile: cannot be opened' err
ring3 1 step nofile
check "a kernel that is not there" grep -q '^ring3: nofile: cannot be opened' err
ring3 2 step --bogus
unprivileged "$RING3" step -x continue -x "step 5" >/dev/full 2>err
status=$?
check "a full disk behind standard output" [ $status = 1 ]
check "a full disk: told" grep -q '^ring3: standard output cannot be written' err
ring3 4 step --timeout 0.5 -x "step 1000000000" "$GUESTS/mmio.elf" && check "--timeout" has '^the machine has stopped: the time'
finish
