"""P12: from exec to the first 200, against nginx; after a crash in mid-write; and the gap when only the server dies."""

import contextlib
import os
import secrets
import signal
import time
from statistics import median

import wrk
from nginx import Nginx
from report import LOWER, Row
from rows.pull import filled_box
from stats import Ratio, run_pairs

CRASHES = 5
WRITING_S = 1


def measure(setup, report):
    box = filled_box(setup, "start")
    peer = Nginx(setup)

    def once(server):
        server.start()
        try:
            return server.first_answer()
        finally:
            server.stop()

    once(box), once(peer)  # at temperature
    ours, theirs = run_pairs(setup.pairs, lambda: once(box), lambda: once(peer), setup.note)
    ratio = Ratio([a / b for a, b in zip(ours, theirs)])
    report.add(
        Row(
            "P12 exec to first 200 on /readyz",
            f"{median(ours) * 1e3:.0f} ms",
            LOWER,
            peer=f"{median(theirs) * 1e3:.0f} ms (nginx)",
            ratio=ratio.text(),
            goal="<= 1.5; 60 ms",
            note=f"{setup.count:,} documents; box with its supervisor",
            data={"ours_s": ours, "peer_s": theirs, "ratio": ratio.as_json()},
        )
    )
    whole = [_crash(setup, box) for _ in range(CRASHES)]
    _row(report, "P12 exec to first 200 after kill -9 of all in mid-write", whole, "its logs are replayed")
    gaps = [_server_dies(setup, box) for _ in range(CRASHES)]
    _row(report, "P12 kill -9 of the server in mid-write to first 200", gaps, "the supervisor starts it again; no connection is refused")


def _row(report, name, seconds, note):
    worst = max(seconds) * 1e3
    report.add(
        Row(
            name,
            f"{worst:.0f} ms (worst of {len(seconds)})",
            LOWER,
            peer="250 ms (gate)",
            ratio=f"{worst / 250:.2f}",
            goal="<= 250 ms",
            note=note,
            data={"seconds": seconds},
        )
    )


@contextlib.contextmanager
def _writing(setup, box):
    client = wrk.start(
        setup, f"http://{setup.box_addr}:8001", "orders.lua", 16, 60,
        TOKEN=box.token(), ORDER_PREFIX=secrets.token_hex(6), BENCH_LUA_DIR=wrk.HERE,
    )  # fmt: skip
    time.sleep(WRITING_S)
    try:
        yield
    finally:
        client.kill()
        client.communicate()


def _crash(setup, box):
    box.start()
    box.first_answer()
    with _writing(setup, box):
        box.kill_all()
    box.start()
    try:
        return box.first_answer()
    finally:
        box.stop()


def _server_dies(setup, box):
    """As a device sees it: from the kill until a new connection is answered."""
    with box:
        box.first_answer()
        with _writing(setup, box):
            old, killed_at = box.server_pid(), time.monotonic()
            os.kill(old, signal.SIGKILL)
            seconds = box.first_answer(since=killed_at)
        if box.server_pid() == old:
            raise RuntimeError("the server that was killed still runs")
    return seconds
