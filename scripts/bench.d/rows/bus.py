"""P8: an order from the bus to stored, completed at the broker and on the device, against a bare loop that does only
what can't be left out: one fsync and two round trips. Each order is sent when the one before is through.
"""

import contextlib
import http.client
import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.parse
from pathlib import Path
from statistics import median

from box import Box
from report import LOWER, Row
from stats import Ratio, run_pairs

ORDERS = 40
DEADLINE_S = 30
BARE_QUEUE = "bare"
ALONE = """
[wan.pull]
enabled = false

[wan.media]
enabled = false
"""


class Control:
    """The platform from behind, over one connection."""

    def __init__(self, url):
        host = urllib.parse.urlsplit(url)
        self.connection = http.client.HTTPConnection(host.hostname, host.port, timeout=30)

    def call(self, method, path, value=None):
        self.connection.request(method, "/control" + path, json.dumps(value) if value is not None else None)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path} was answered {answer.status}: {body!r}")
        return json.loads(body) if body else None

    def wait_empty(self, queue):
        end = time.monotonic() + DEADLINE_S
        while self.call("GET", f"/bus/{queue}")["messages"]:
            if time.monotonic() > end:
                raise RuntimeError(f"{queue} is not emptied within {DEADLINE_S} s")


def orders(control, queue, next_shown):
    """Milliseconds until an order is on the device, and until it is off the broker, too."""
    shown, through = [], []
    for _ in range(ORDERS):
        order = {"order_id": f"p8-{secrets.token_hex(8)}", "lines": [{"name": "Café crème", "n": 2}]}
        started = time.monotonic()
        control.call("POST", f"/orders?queue={queue}", order)
        line = next_shown()
        if order["order_id"] not in line:
            raise RuntimeError(f"the device shows another order: {line!r}")
        shown.append((time.monotonic() - started) * 1e3)
        control.wait_empty(queue)
        through.append((time.monotonic() - started) * 1e3)
    return {"shown_ms": median(shown), "through_ms": median(through)}


@contextlib.contextmanager
def kitchen(setup, box):
    """A simulated device of the shop that shows orders on its standard output; gives a function for the next line."""
    state = box.dir / "kitchen"
    # A device of an earlier run is paired with a box that is no more.
    shutil.rmtree(state, ignore_errors=True)
    device = subprocess.Popen(
        [
            str(Path(setup.programs_dir) / "device-emulator"), "--bind", setup.peer_addr, "--care-url", f"http://{setup.box_addr}:8004",
            "--pair-code", setup.claim_code, "--heartbeat-s", "1", "--state", str(state),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield device.stdout.readline
    finally:
        device.terminate()
        device.wait(10)


@contextlib.contextmanager
def bare_loop(setup, site, box):
    """The bare loop; gives a function for the next order it brings to the device."""
    with socket.create_server((setup.peer_addr, 0)) as server:
        wan = site["wan"]
        loop = subprocess.Popen(
            [
                sys.executable, str(Path(__file__).parent.parent / "bare_bus.py"), wan["bus_url"], str(box.dir / "ca.pem"),
                wan["bus"]["key_name"], wan["bus"]["key"], BARE_QUEUE, str(box.dir / "floor.bin"),
                f"{setup.peer_addr}:{server.getsockname()[1]}",
            ],
            stdin=subprocess.PIPE,
        )  # fmt: skip
        try:
            server.settimeout(DEADLINE_S)
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines = connection.makefile("rb")

            def next_shown():
                line = lines.readline()
                connection.sendall(b"!")
                return line.decode()

            yield next_shown
        finally:
            loop.stdin.close()
            loop.wait(10)


def measure(setup, report):
    control = Control(setup.control_url)
    control.call("PUT", f"/bus/queues/{BARE_QUEUE}")
    box = Box(setup, "bus", extra=ALONE)
    box.wipe()
    site = tomllib.loads(box.site_file.read_text(encoding="utf-8"))
    queue = f"site-{site['site']['site_id']}"
    control.call("DELETE", f"/bus/{queue}/messages")
    with box, bare_loop(setup, site, box) as bare_next:
        box.first_answer()
        with kitchen(setup, box) as kitchen_next:
            orders(control, queue, kitchen_next)  # at temperature
            orders(control, BARE_QUEUE, bare_next)
            ours, bare = run_pairs(
                setup.pairs,
                lambda: orders(control, queue, kitchen_next),
                lambda: orders(control, BARE_QUEUE, bare_next),
                setup.note,
            )
    ratio = Ratio([a["through_ms"] / b["through_ms"] for a, b in zip(ours, bare)])
    more = Ratio([a["through_ms"] - b["through_ms"] for a, b in zip(ours, bare)])
    report.add(
        Row(
            "P8 order from the bus to stored, completed and on the device",
            f"{median(a['through_ms'] for a in ours):.2f} ms",
            LOWER,
            peer=f"{median(b['through_ms'] for b in bare):.2f} ms (bare loop: 1 fsync, 2 round trips)",
            ratio=ratio.text(),
            goal="bare loop + 2 ms",
            note=f"{more.text()} ms more; on the device after {median(a['shown_ms'] for a in ours):.2f} ms"
            f" (bare {median(b['shown_ms'] for b in bare):.2f} ms)",
            data={"ours": ours, "peer": bare, "ratio": ratio.as_json(), "more_ms": more.as_json()},
        )
    )
