"""P7: a durable order over HTTP, against the least a disk can do for it: one 4 KiB write and one fdatasync.

Every order is also a command and an event in the outbox. While orders are timed the box does not push events, so that
a backlog of them is not part of the figure; what their delivery writes has a row of its own.
"""

import json
import os
import secrets
import time
from pathlib import Path
from statistics import median

import procs
import wrk
from report import HIGHER, LOWER, Row
from rows.pull import filled_box
from stats import Ratio, run_pairs

BLOCK_S = 3
WRITERS = 16
WRITE_BYTES = 4096
FILE_WRITES = 1024
KIB = 1024
NO_PUSH = "\n[wan.push]\nenabled = false\n"
DRAIN_DEADLINE_S = 300


def post(setup, box, connections, seconds=BLOCK_S):
    """Orders with ids of their own; wrk's figures."""
    return wrk.run(
        setup, f"http://{setup.box_addr}:8001", "orders.lua", connections, seconds,
        TOKEN=box.token(), ORDER_PREFIX=secrets.token_hex(6), BENCH_LUA_DIR=wrk.HERE,
    )  # fmt: skip


def _orders(setup, box, connections):
    before = procs.io_counts(box.server_pid())
    figures = post(setup, box, connections)
    after = procs.io_counts(box.server_pid())
    figures["s_each"] = figures["seconds"] / figures["requests"]
    figures["bytes_each"] = (after["write_bytes"] - before["write_bytes"]) / figures["requests"]
    return figures


class Floor:
    """4 KiB written over what is there already, then fdatasync: no file grows, no metadata changes."""

    def __init__(self, setup):
        self.path = Path(setup.run_dir) / "floor.bin"
        self.path.write_bytes(os.urandom(WRITE_BYTES) * FILE_WRITES)
        fd = os.open(self.path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def run(self):
        block = os.urandom(WRITE_BYTES)
        fd = os.open(self.path, os.O_WRONLY)
        writes, started = 0, time.monotonic()
        while time.monotonic() - started < BLOCK_S:
            os.pwrite(fd, block, writes % FILE_WRITES * WRITE_BYTES)
            os.fdatasync(fd)
            writes += 1
        seconds = time.monotonic() - started
        os.close(fd)
        return {"writes": writes, "seconds": seconds, "s_each": seconds / writes}


def measure(setup, report):
    floor = Floor(setup)
    with filled_box(setup, "orders", extra=NO_PUSH) as box:
        box.first_answer()
        _orders(setup, box, 1)  # at temperature
        one, disk = run_pairs(setup.pairs, lambda: _orders(setup, box, 1), floor.run, setup.note)
        ratio = Ratio([a["s_each"] / b["s_each"] for a, b in zip(one, disk)])
        report.add(
            Row(
                "P7 durable order, one writer: time each",
                f"{median(a['s_each'] for a in one) * 1e3:.2f} ms",
                LOWER,
                peer=f"{median(b['s_each'] for b in disk) * 1e3:.2f} ms (4 KiB write + fdatasync)",
                ratio=ratio.text(),
                goal="<= 1.3, 1.1",
                note=f"p99 {median(a['p99_ms'] for a in one):.2f} ms",
                data={"ours": one, "peer": disk, "ratio": ratio.as_json()},
            )
        )
        many, single = run_pairs(
            setup.pairs, lambda: _orders(setup, box, WRITERS), lambda: _orders(setup, box, 1), setup.note
        )
    ratio = Ratio([b["s_each"] / a["s_each"] for a, b in zip(many, single)])
    report.add(
        Row(
            f"P7 durable orders, {WRITERS} writers: orders per second",
            f"{median(1 / a['s_each'] for a in many):,.0f}/s",
            HIGHER,
            peer=f"{median(1 / b['s_each'] for b in single):,.0f}/s (one writer)",
            ratio=ratio.text(),
            goal=">= 6",
            note=f"p99 {median(a['p99_ms'] for a in many):.2f} ms",
            data={"ours": many, "peer": single, "ratio": ratio.as_json()},
        )
    )
    delivered = _delivered(setup)
    for name, blocks in (
        ("one writer", one + single),
        (f"{WRITERS} writers", many),
        ("one writer, event delivered too", [delivered]),
    ):
        each = median(block["bytes_each"] for block in blocks) / KIB
        report.add(
            Row(
                f"P7 bytes written per order, {name}",
                f"{each:.1f} KiB",
                LOWER,
                peer="8 KiB (gate)",
                ratio=f"{each / 8:.2f}",
                goal="<= 8 KiB",
                note="by /proc/PID/io: what the server hands to the file system, whose journal comes on top",
                data={"kib": each},
            )
        )


def _delivered(setup):
    """Orders, then the wait until the platform has all their events: what both wrote, per order."""
    with filled_box(setup, "delivered") as box:
        box.first_answer()
        before = procs.io_counts(box.server_pid())
        figures = post(setup, box, 1)
        end = time.monotonic() + DRAIN_DEADLINE_S
        while json.loads(box.ask(80, "GET", "/status.json")[1])["orders"]["to_send"]:
            if time.monotonic() > end:
                raise RuntimeError(f"events still wait after {DRAIN_DEADLINE_S} s")
            time.sleep(0.2)
        after = procs.io_counts(box.server_pid())
    figures["bytes_each"] = (after["write_bytes"] - before["write_bytes"]) / figures["requests"]
    return figures
