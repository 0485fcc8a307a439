"""What the kernel counts for processes."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def children(pid):
    """Direct children of `pid`, of all its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pids):
    """User and system time of the processes, their threads included, in steps of a clock tick."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def pss_kib(pids):
    """Proportional set size: what the processes cost, shared pages divided among those who share them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def status_kib(pid, names):
    """Sizes of /proc/PID/status, KiB."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words and words[0].rstrip(":") in names}


def io_counts(pid):
    """/proc/PID/io as numbers; `write_bytes` is what the process sent towards the disk."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(":") for line in lines)}


def core_waits(pid, name):
    """Of the threads called `name`: seconds they waited for a core while they could run, and how often they had one."""
    waited = turns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            _, nanoseconds, times = (task / "schedstat").read_text().split()
            waited += int(nanoseconds) / 1e9
            turns += int(times)
    return waited, turns


def pinned(core):
    """For subprocess: runs the child on one core only."""
    return lambda: os.sched_setaffinity(0, {core})
