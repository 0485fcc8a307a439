"""P1 and P3: requests per server-CPU-second on port 8000, against nginx serving the same bytes as files.

Server on one core, client on the other, 64 connections, closed loop at saturation: the latencies are those of a full
server, to be compared and not to be promised. Keys are drawn from the whole catalogue by Zipf's law (s = 1).
"""

import itertools
import json
import random
from bisect import bisect
from pathlib import Path
from statistics import median
from urllib.parse import quote

import wrk
from nginx import PORT, Nginx
from report import HIGHER, LOWER, Row
from rows.pull import full_box
from stats import Ratio, run_pairs

CONNECTIONS = 64
BLOCK_S = 3
DRAWS = 20_000
CONTROL = (0.97, 1.03)


def paths(setup):
    """Paths to ask for, by id and by barcode, drawn with repetition. The same in every run on one catalogue."""
    with open(setup.catalogue, encoding="utf-8") as lines:
        products = [json.loads(line) for line in lines]
    dice = random.Random(17)
    dice.shuffle(products)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(products) + 1)))
    drawn = [products[bisect(weights, dice.random() * weights[-1])] for _ in range(DRAWS)]
    return {
        "id": [f"/v1/documents/products/{quote(product['id'], safe='')}" for product in drawn],
        "barcode": [f"/v1/barcodes/{product['barcodes'][0]}" for product in drawn],
    }


class Load:
    """The drawn paths as a file for the client, and their answers as files for nginx."""

    def __init__(self, setup, box):
        self.setup = setup
        self.token = box.token()
        self.files = {}
        answers = {}
        headers = {"Authorization": f"Bearer {self.token}"}
        for kind, drawn in paths(setup).items():
            self.files[kind] = Path(setup.run_dir) / f"paths-{kind}.txt"
            self.files[kind].write_text("\n".join(drawn) + "\n", encoding="utf-8")
            answers |= box.ask_many(8000, sorted(set(drawn)), headers)
        self.answers = answers
        self.mean_bytes = sum(map(len, answers.values())) / len(answers)

    def run(self, address, kind, seconds=BLOCK_S, connections=CONNECTIONS):
        url = f"http://{address}:{PORT}"
        return wrk.finish(self.start(url, kind, seconds, connections))

    def start(self, url, kind, seconds, connections=CONNECTIONS):
        return wrk.start(
            self.setup, url, "get.lua", connections, seconds,
            TOKEN=self.token, PATHS_FILE=self.files[kind], BENCH_LUA_DIR=wrk.HERE,
        )  # fmt: skip


def _block(load, server, address, kind):
    before = server.cpu_seconds()
    figures = load.run(address, kind)
    figures["per_cpu_s"] = figures["requests"] / (server.cpu_seconds() - before)
    return figures


def measure(setup, report):
    with full_box(setup, setup.server_core) as box:
        box.first_answer()
        load = Load(setup, box)
        peer = Nginx(setup, setup.server_core)
        peer.put(load.answers)
        with peer:
            _check_same_bytes(setup, load, box)
            report.facts["mean answer on port 8000"] = f"{load.mean_bytes:.0f} bytes"
            ours = {kind: lambda kind=kind: _block(load, box, setup.box_addr, kind) for kind in load.files}
            theirs = {kind: lambda kind=kind: _block(load, peer, setup.peer_addr, kind) for kind in load.files}
            void = _control(setup, report, ours["id"])
            _compare(setup, report, "P1 GET by id", ">= 1.0, 1.2", ours["id"], theirs["id"], void)
            _compare(setup, report, "P3 GET by barcode, Zipf keys", ">= 0.6, 0.9", ours["barcode"], theirs["barcode"], void)


def _check_same_bytes(setup, load, box):
    """A comparator that answers 404 would be fast."""
    for path in list(load.answers)[:50]:
        status, body = box.ask(PORT, "GET", path, address=setup.peer_addr)
        if status != 200 or body != load.answers[path]:
            raise RuntimeError(f"nginx answers {path} with {status} and other bytes than the box")


def _control(setup, report, ours):
    """The same server twice: what the ratio is worth on this machine now. Why the run is void, or nothing."""
    first, second = run_pairs(setup.pairs, ours, ours, setup.note)
    ratio = Ratio([a["per_cpu_s"] / b["per_cpu_s"] for a, b in zip(first, second)])
    void = note = ""
    if not CONTROL[0] <= ratio.median <= CONTROL[1]:
        void = note = "VOID: the A/A control is outside 0.97 to 1.03"
    elif ratio.low < CONTROL[0] or ratio.high > CONTROL[1]:
        note = "the control's interval is wider than 0.97 to 1.03: differences of that size mean nothing here"
    report.add(
        Row(
            "A/A control of the two rows below",
            f"{median(a['per_cpu_s'] for a in first):,.0f} requests/CPU-s",
            "1.00",
            peer=f"{median(b['per_cpu_s'] for b in second):,.0f} (the same server)",
            ratio=ratio.text(),
            goal="0.97 to 1.03",
            note=note,
            data={"a": first, "b": second, "ratio": ratio.as_json()},
        )
    )
    return void


def _compare(setup, report, name, goal, ours, theirs, void):
    ours(), theirs()  # at temperature
    a, b = run_pairs(setup.pairs, ours, theirs, setup.note)
    for what, key, unit, better, wanted in (
        ("requests per CPU-second", "per_cpu_s", "/CPU-s", HIGHER, goal),
        ("p99 at saturation", "p99_ms", " ms", LOWER, "<= 1.0"),
    ):
        ratio = Ratio([x[key] / y[key] for x, y in zip(a, b)])
        digits = 0 if better == HIGHER else 2
        report.add(
            Row(
                f"{name}: {what}",
                f"{median(x[key] for x in a):,.{digits}f}{unit}",
                better,
                peer=f"{median(y[key] for y in b):,.{digits}f}{unit} (nginx)",
                ratio=ratio.text(),
                goal=wanted,
                note=void,
                data={"ours": a, "peer": b, "ratio": ratio.as_json()},
            )
        )
