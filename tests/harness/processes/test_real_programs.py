# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's static i386 programs on the model: what they print is what they print on the host.

The host's kernel runs the same binaries on the same files; standard output, standard error and
status must be equal byte by byte. What a host alone decides (PIDs, the time, its name) is in no
command. Needs the packages (:mod:`tests.packages`) and a host that runs i386 programs.
"""

import re
import resource
import shlex
from collections.abc import Iterable
from dataclasses import replace

import pytest

from harness.processes.checking import Check
from kernel_model.config import Highmem, KernelConfig
from kernel_model.mm.memory.fault import Cause
from tests import packages
from tests.harness.processes.releases import both, on_both
from tests.harness.processes.running import Run, Tree

MIB = 1 << 20

BUSYBOX = {
    "echo": "echo one 'two  three'",
    "false": "false",
    "unknown applet": "no-such-applet",
    "ls": "ls data data/below",
    "ls -la": "ls -lan data/below data/below/deep",
    "ls of nothing": "ls data/nothing",
    "stat": "stat -c '%n %s %a %h %F %Y' data/words data/below/link",
    "cat": "cat data/below/link data/table",
    "cat of a directory": "cat data",
    "head": "head -n 3 data/words data/table",
    "tail": "tail -c 100 data/words",
    "wc": "wc data/words data/below/bytes",
    "sort": "sort data/words",
    "sort -k": "sort -k 3n data/table",
    "uniq": "uniq -c data/words",
    "cut": "cut -f 2 data/table",
    "tr": "tr a-m A-M",
    "grep": "grep -n -E '^(a|kl).*s$' data/words",
    "grep of nothing": "grep -c zzz data/words",
    "sed": r"sed -n -e 's/\([aeiou]\)\(.\)/\2\1/gp' data/words",
    "awk": "awk '{ s[$2] += $3 } END { for (w in s) n++; print n, 2 / 3 }' data/table",
    "awk, floating": "awk 'BEGIN { for (i = 1; i < 20; i++) print sqrt(i), exp(i), sin(i), i^9 }'",
    "find": "find data -type f -size +1",
    "find -exec": "find data -name 'w*' -exec wc {} +",
    "xargs": "xargs -n 7 echo",
    "seq": "seq 3 7 100",
    "printf": r"printf '%s %5d %x %c\n' a 1 255 z b 2 16 y",
    "expr": "expr 6 '*' 7",
    "env": "env",
    "md5sum": "md5sum data/words data/below/bytes",
    "sha256sum": "sha256sum data/words data/below/bytes",
    "od": "od -A x -t x1z data/table",
    "base64": "base64 data/below/bytes",
    "gzip": "gzip -c data/words",
    "diff": "diff data/words data/table",
    "cmp": "cmp data/words data/table",
    "bc": "bc",
    "dc": "dc -e '2 100 ^ p'",
    "dd": "dd if=data/words bs=100 count=3 skip=1 status=none",
    "cal": "cal 2 2004",
    "date": "date -d @1000000000",
    "readlink": "readlink data/below/link",
}
"""Name -> the arguments of ``busybox``."""
INPUTS = {
    "tr": b"minimal example\n" * 5,
    "xargs": b"a b 'c d' e\n" * 9,
    "bc": b"scale=30\n4*a(1)\n2^200\nfor (i = 0; i < 4; i++) i * i\n",
}

BUSYBOX_SH = {
    "pipes": "for i in 3 1 2; do echo $i; done | sort | cat -n",
    "gzip and gunzip": "gzip -c < data/below/bytes | gunzip | cmp - data/below/bytes && echo same",
    "tar": "mkdir new; tar cf - data | tar xf - -C new; diff -r data new/data && ls -R new",
    "status": "false; echo $?; (exit 7); echo $?; sh -c 'kill -9 $$'; echo $?",
    "background": "(echo late) & wait $!; echo $?; sleep 0.01; echo end",
    "here-document": "cat <<X; wc -c <<Y\na $((1+2)) b\nX\nc\nY\n",
    "files": "echo one >a; echo two >>a; cp a b; mv b c; ln -s a d; ln a e; chmod 600 c; cat d e; "
    "rm a; cat d; stat -c '%a %h %s' c e; mkdir -p x/y; cd x/y && rmdir ../y; ls ..",
    "substitution": "a=$(seq 1 100 | awk '{ s += $1 } END { print s }'); echo $a `echo in`",
    "script": "sh data/below/deep/script 1 2; data/below/deep/run 3 4",
    "itself in /proc": "cut -d ' ' -f 2,3 /proc/self/stat; cat /proc/self/comm /proc/self/cmdline; "
    "readlink /proc/self/exe | grep -c '^/.*busybox$'",
    "loop": "i=0; while [ $i -lt 500 ]; do i=$((i+1)); done; echo $i",
    "broken pipe": "yes | head -n 2; seq 1 20000 | head -n 1",
    "errors": "no-such-command; echo $?; ./data; echo $?; echo x > no/such; echo $?",
    "sort of much": "seq 1 900 | sort -r | sort -n | md5sum",
    "trap": "trap 'echo caught' USR1; kill -USR1 $$; echo on; trap 'echo bye' EXIT; exit 2",
}

BASH = {
    "loop": "for ((i = 0; i < 300; i++)); do ((s += i * i)); done; echo $s",
    "associative array": "declare -A m=([x]=1 [y]=2); m[z]=3; for k in x z; do echo ${m[$k]}; done",
    "subshells": "x=1; (x=2; echo $x; (exit 5)); echo $? $x; ( : ) && echo yes",
    "here-document": "cat <<X; read -r a b <<<'one two'; echo $b\n$((6 * 7)) `echo in`\nX\n",
    "trap of EXIT": "trap 'echo bye $?' EXIT; echo hi; exit 3",
    "trap of ERR": "trap 'echo failed $?' ERR; false; (exit 4); true",
    "trap of a signal": "trap 'echo caught' USR1; kill -USR1 $$; echo on; kill -TERM $$; echo not",
    "functions": "f() { local n=$1; ((n < 2)) && echo 1 || echo $((n * $(f $((n - 1))))); }; f 6",
    "arithmetic": "echo $((2 ** 40)) $((0xff ^ 0x0f)) $((-7 / 2)) $((-7 % 3)) $((1 << 33))",
    "division by zero": "echo $((1 / 0)); echo not reached",
    "status": "false; echo $?; true | false | true; echo ${PIPESTATUS[@]}; ! true; echo $?",
    "command substitution": 'a=$(for i in 1 2; do echo $i; done); echo "$a" $(echo $(echo deep))',
    "pipes of programs": "cat data/words | tr a-z A-Z | sort | uniq | head -n 20",
    "read": "while read -r n word rest; do ((n % 50)) || echo $n:$word; done < data/table",
    "background": "echo first & wait; { echo second; exit 9; } & wait $!; echo $?",
    "printf": "printf '%05d|%-6s|%q|%x\\n' 42 ab 'c d' 255",
    "expansion": "v=data/below/deep; echo ${v##*/} ${v%/*} ${v/deep/x} ${#v} ${v^^}; echo data/*",
    "braces": "echo {a,b}{1..4}; echo ${RANDOM:+random}",
    "regular expression": "[[ abc123 =~ ^([a-z]+)([0-9]+)$ ]]; echo ${BASH_REMATCH[@]:1}",
    "case": "for x in apple 1 ''; do case $x in a*) echo A;; [0-9]) echo N;; *) echo;; esac; done",
    "redirections": "exec 3>out; echo 3 >&3; exec 3>&-; cat <out; echo err >&2; cat no 2>/dev/null",
    "process substitution": "cat <(echo one) <(echo two)",
    "coprocess": "coproc cat; echo ping >&${COPROC[1]}; read -r x <&${COPROC[0]}; echo $x",
    "errors": "nothing-like-this; echo $?; if then",
}

SHELLS = ("bash", "zsh", "mksh-musl", "mksh-diet", "mksh-klibc")
EVERY_SHELL = (
    'f() { echo "f $1"; }; for i in 1 2 3; do f $i; done; echo $((6 * 7)); x=$(echo sub); echo $x; '
    "echo a b | while read p q; do echo $q $p; done; (exit 6); echo $?; cat data/table | wc -l"
)

OTHERS = {
    "sash": ("sash", "-c", "-echo one two"),
    "sash, files": ("sash", "-c", "-sum data/words"),
    "gpgv": ("gpgv", "--version"),
    "gpgv without a signature": ("gpgv", "--keyring", "./data/words", "data/table"),
    "e2fsck": ("e2fsck", "-V"),
}


CHECKS = pytest.mark.parametrize(
    "check", [Check.NONE, pytest.param(Check.FULL, marks=pytest.mark.slow)]
)


def of_both(names: Iterable[str], every: int = 3) -> pytest.MarkDecorator:
    """A test of programs by name, on both releases."""
    return pytest.mark.parametrize(("name", "release"), both(names, every))


FAULTS = {
    "busybox echo": ("busybox", "echo", "hi"),
    "busybox ls": ("busybox", "ls", "data"),
    "bash, 3,000 elements": (
        *("bash", "-c", "a=(); for ((i = 0; i < 3000; i++)); do a[i]=$i; done; echo ${#a[@]}"),
    ),
    "zsh": ("zsh", "-fc", "echo hi"),
}
"""Programs of one process each."""
FAULT_AROUND = 64 << 10
STACKS = 0xB0000000
WRITE = 2

LITTLE_MEMORY = {
    "busybox": ("busybox", "sh", "-c", "seq 1 300 | sort -r | gzip | gunzip | md5sum"),
    "bash": (
        *("bash", "-c"),
        "for ((i = 0; i < 999; i++)); do a[i]=$i; done; (echo ${a[@]:5:9}); echo ${a[@]} | wc -c",
    ),
}
MACHINES = {
    "PAE": KernelConfig(highmem=Highmem.GB64),
    "high memory": KernelConfig(ram=1000 * MIB, highmem=Highmem.GB4),
    "NX": KernelConfig(highmem=Highmem.GB64, cpu_model="coreduo"),
    "no FXSAVE of SSE": KernelConfig(cpu_model="pentium2"),
    "two nodes": KernelConfig(ram=32 * MIB, nodes=2),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    packages.need_native()
    return Tree(tmp_path_factory.mktemp("programs"), packages.available())


def equal(
    tree: Tree,
    program: str,
    *arguments: str,
    data: bytes = b"",
    config: KernelConfig | None = None,
    release: str = "2.4",
    check: Check = Check.FULL,
) -> Run:
    """Both runs, compared."""
    packages.program(program)
    argv = [f"bin/{program}", *arguments]
    native = tree.natively(argv, data)
    run = tree.on_model(argv, data, replace(config or KernelConfig(), release=release), check)
    assert (run.outcome.status, run.outcome.error) == (native.status, native.error)
    same = run.outcome.output == native.output
    assert same, f"{run.outcome.output[:500]!r} instead of {native.output[:500]!r}"
    return run


@of_both(BUSYBOX)
def test_busybox(tree: Tree, name: str, release: str) -> None:
    arguments, data = shlex.split(BUSYBOX[name]), INPUTS.get(name, b"")
    equal(tree, "busybox", *arguments, data=data, release=release, check=Check.NONE)


@CHECKS
@of_both(BUSYBOX_SH)
def test_the_shell_of_busybox(tree: Tree, name: str, release: str, check: Check) -> None:
    equal(tree, "busybox", "sh", "-c", BUSYBOX_SH[name], release=release, check=check)


@CHECKS
@of_both(BASH)
def test_bash(tree: Tree, name: str, release: str, check: Check) -> None:
    equal(tree, "bash", "-c", BASH[name], release=release, check=check)


@of_both(SHELLS, every=2)
def test_other_shells_and_other_c_libraries(tree: Tree, name: str, release: str) -> None:
    """glibc, musl, dietlibc and klibc each have an own way to start, to fork and to allocate."""
    equal(tree, name, *(("-f",) if name == "zsh" else ()), "-c", EVERY_SHELL, release=release)


@of_both(OTHERS)
def test_other_programs(tree: Tree, name: str, release: str) -> None:
    equal(tree, *OTHERS[name], release=release)


@pytest.mark.slow
@on_both
def test_sha256sum_of_8_mib(tree: Tree, release: str) -> None:
    equal(tree, "busybox", "sha256sum", "big", release=release)


# -- other machines ------------------------------------------------------------------------------


@pytest.mark.book("11.5")
@of_both(LITTLE_MEMORY, every=2)
def test_what_has_to_swap_prints_the_same(tree: Tree, name: str, release: str) -> None:
    """5 MiB of RAM, of which the kernel leaves 1: next to nothing stays in memory."""
    config = KernelConfig(ram=5 * MIB, swap_pages=4096)
    run = equal(tree, *LITTLE_MEMORY[name], config=config, release=release)
    assert run.causes[Cause.SWAP] > 10


@pytest.mark.slow
@on_both
def test_8_mib_of_ram(tree: Tree, release: str) -> None:
    command = "dd if=big bs=6M count=1 of=out; dd if=out bs=5M | tail -c 100000 | md5sum"
    config = KernelConfig(ram=8 * MIB, swap_pages=8192)
    shell = ("busybox", "sh", "-c", f"({command}) 2>/dev/null")
    run = equal(tree, *shell, config=config, release=release)
    assert run.causes[Cause.SWAP] > 500


@of_both(MACHINES, every=2)
def test_other_page_tables_high_memory_and_nodes(tree: Tree, name: str, release: str) -> None:
    config = MACHINES[name]
    if release == "2.6" and config.highmem is not Highmem.NONE:
        config = replace(config, release=release, highpte=True)
    equal(tree, "bash", "-c", EVERY_SHELL, config=config, release=release, check=Check.NONE)


NO_ROOM = "ulimit -v 3000; a=$(printf '%1500000s' x)"
"""More than may be had, and little enough that the emulator gets there soon: 40 instructions a
byte, or 2,400 million for 60,000 kB, are a minute and a half.
"""


@on_both
def test_what_meets_its_limit_of_address_space(tree: Tree, release: str) -> None:
    """It says so, as on the host; how much it asked for last depends on where things lie."""
    packages.program("bash")
    argv = ["bin/bash", "-c", f"f() {{ ((n++ < 40)) && f; }}; f; {NO_ROOM}"]
    config = KernelConfig(release=release)
    ours = tree.on_model(argv, config=config, check=Check.NONE).outcome
    native = tree.natively(argv)
    assert (ours.status, ours.output) == (native.status, native.output) == (2, b"")
    said, number, rest = re.split(rb"(\d+)", ours.error)
    assert (said, rest) == (b"bin/bash: xrealloc: cannot allocate ", b" bytes\n")
    assert re.sub(rb"\d+", number, native.error) == ours.error


@pytest.mark.parametrize(("release", "version"), [("2.4", b"2.4.22"), ("2.6", b"2.6.11")])
def test_uname_tells_whose_memory_manager_it_is(tree: Tree, release: str, version: bytes) -> None:
    """Beside a release that the C library of today accepts."""
    packages.program("busybox")
    argv, config = ["bin/busybox", "uname", "-rv"], KernelConfig(release=release)
    output = tree.on_model(argv, config=config).outcome.output
    assert output == b"3.2.0 #1 mmucheck, memory of " + version + b"\n"


@on_both
def test_ps_finds_every_process(tree: Tree, release: str) -> None:
    """Read from ``/proc/PID/stat`` and ``cmdline``: its parent sleeps, it runs."""
    packages.program("busybox")
    command = "sleep 9 & bin/busybox ps -o pid,ppid,stat,args; kill $!"
    argv, config = ["bin/busybox", "sh", "-c", command], KernelConfig(release=release)
    output = tree.on_model(argv, config=config).outcome.output
    lines = [line.split(None, 3) for line in output.decode().splitlines()[1:]]
    assert [(pid, ppid, stat[0]) for pid, ppid, stat, _ in lines] == [
        *(("2", "1", "S"), ("3", "2", "S"), ("4", "2", "R")),
    ]
    assert lines[2][3] == "bin/busybox ps -o pid,ppid,stat,args"


# -- page faults ---------------------------------------------------------------------------------


def native_faults(tree: Tree, argv: list[str]) -> int:
    """Minor faults of a run by the host's kernel, the program's files being in its cache."""
    least = 0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
        tree.natively(argv)
        count = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before
        least = min(least or count, count)
    return least


@of_both(FAULTS)
def test_pages_are_touched_as_on_the_host(tree: Tree, name: str, release: str) -> None:
    """Both releases map one page for each fault. A kernel of today maps with a page of a file all
    that it has cached of the 64 KiB around it: counted that way, our faults are the host's.
    """
    program, *arguments = FAULTS[name]
    packages.program(program)
    argv = [f"bin/{program}", *arguments]
    run = equal(tree, program, *arguments, release=release, check=Check.NONE)
    reads = {address for address, code in run.faults if address < STACKS and not code & WRITE}
    others = len(run.faults) - len(reads)
    around = len({address // FAULT_AROUND for address in reads})
    assert native_faults(tree, argv) == pytest.approx(around + others, rel=0.2, abs=8)
    assert len(run.faults) < 4 * (around + others)
