"""Runs the rows in order and writes the table. Started by scripts/bench, which prepared platform, binary and catalogue."""

import argparse
import sys
import time
import traceback
from pathlib import Path

from report import Report, Row, machine_facts
from rows import boot, bulk, bus, feed, memory, orders, pull, serve, size, start, syscalls, weather

ROWS = {
    "size": size.measure,
    "pull": pull.measure,
    "feed": feed.measure,
    "serve": serve.measure,
    "orders": orders.measure,
    "bus": bus.measure,
    "memory": memory.measure,
    "start": start.measure,
    "syscalls": syscalls.measure,
    "boot": boot.measure,
    "bulk": bulk.measure,
    "weather": weather.measure,
}
FULL_PAIRS, QUICK_PAIRS = 12, 4
# A pull takes long: fewer pairs tell as much.
FULL_PULL_PAIRS, QUICK_PULL_PAIRS = 12, 2


def note(text):
    if sys.stdout.isatty():
        print(f"    {text}", end="\033[K\r", flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("binary", "site-file", "run-dir", "target-dir", "repo-dir", "box-addr", "peer-addr", "platform-addr", "claim-code", "catalogue", "rows", "programs-dir", "control-url"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--server-core", type=int, required=True)
    parser.add_argument("--client-core", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    setup = parser.parse_args()
    setup.pairs = QUICK_PAIRS if setup.quick else FULL_PAIRS
    setup.few_pairs = QUICK_PULL_PAIRS if setup.quick else FULL_PULL_PAIRS
    setup.note = note
    return setup


def main():
    setup = arguments()
    report = Report(machine_facts(setup.quick))
    folder = Path(setup.target_dir) / "bench"
    failed = False
    for name in setup.rows.split():
        print(f"· {name} …", flush=True)
        started = time.monotonic()
        try:
            ROWS[name](setup, report)
        except Exception as error:  # one row that can't be measured leaves the others
            failed = True
            traceback.print_exc()
            report.add(Row(name, "could not be measured", "", note=f"{type(error).__name__}: {error}".replace("\n", " ")[:300]))
        print(f"✓ {name}: {time.monotonic() - started:.0f} s", flush=True)
        report.write(folder)
    print()
    for name, value in report.facts.items():
        print(f"{name}: {value}")
    print()
    print(report.table())
    print(f"\nkept in {folder}/results.json and results.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
