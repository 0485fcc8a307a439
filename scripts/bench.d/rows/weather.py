"""R7: from the line's return to rest, after an outage, against the same box started afresh at that moment with the same work
before it: no back-off behind it, and its start not counted. Both on a shop's line (media at 20 Mbit/s).

At rest: the last document changed is served, no order is left at the bus, no report on the box, every image is there.
A control must be caught: a box whose first wait is as long as others' last one.
"""

import contextlib
import json
import os
import secrets
import time
import tomllib
from statistics import median

from report import LOWER, Row
from rows.bus import Control
from rows.pull import filled_box
from stats import Ratio, run_pairs

GATE = 2.0
# By then waits are of 16 to 32 s.
OUTAGE_S = 45
DOCUMENTS, DOCUMENT_BYTES = 10_000, 300
ORDERS, REPORTS = 50, 100
IMAGES, IMAGE_BYTES = 5, 5 << 20
LINE = "\n[wan.media]\nrate_cap_kib_s = 2500\n"
WEAK = "\n[wan]\nretry_first_ms = 60000\nretry_max_s = 60\n"
DEADLINE_S = 180
LOOK_S = 0.02


class Shop:
    """A box and the platform from behind."""

    def __init__(self, setup, name, weak=False):
        self.box = filled_box(setup, name, setup.server_core, LINE)
        if weak:
            site = self.box.site_file.read_text(encoding="utf-8")
            self.box.site_file.write_text(site.replace("\n[wan]\n", WEAK, 1), encoding="utf-8")
        site = tomllib.loads(self.box.site_file.read_text(encoding="utf-8"))
        if weak and site["wan"].get("retry_first_ms") != 60000:
            raise RuntimeError("the control's settings did not reach its site file")
        self.queue = f"site-{site['site']['site_id']}"
        self.control = Control(setup.control_url)

    def start(self):
        self.box.start()
        self.box.first_answer()
        self.headers = {"Authorization": f"Bearer {self.box.token()}"}

    def put_blob(self, name, content):
        connection = self.control.connection
        connection.request("PUT", f"/control/blobs/images/{name}?document=1", content, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        data = json.loads(answer.read())
        return data["sha256"]

    def miss(self):
        """The work of the outage; what is looked for afterwards."""
        first = secrets.randbelow(1 << 30)
        self.control.call("POST", "/documents/products/generate", {"count": DOCUMENTS, "bytes": DOCUMENT_BYTES, "from": first})
        for _ in range(ORDERS):
            self.control.call("POST", f"/orders?queue={self.queue}", {"order_id": f"r7-{secrets.token_hex(8)}", "lines": []})
        for _ in range(REPORTS):
            order = {"order_id": f"r7-{secrets.token_hex(8)}", "placed_at": "2026-11-24T20:00:00Z", "lines": []}
            headers = {**self.headers, "Idempotency-Key": order["order_id"], "Content-Type": "application/json"}
            status, answer = self.box.ask(8001, "POST", "/v1/orders", json.dumps(order), headers)
            if status != 201:
                raise RuntimeError(f"an order was answered {status}: {answer!r}")
        images = [self.put_blob(f"r7-{secrets.token_hex(8)}.png", os.urandom(IMAGE_BYTES)) for _ in range(IMAGES)]
        return f"/v1/documents/products/g{first + DOCUMENTS - 1}", images

    def wait_for_rest(self, work):
        document, images = work
        ends = time.monotonic() + DEADLINE_S
        levels = [lambda: self.box.ask(8000, "GET", document, None, self.headers)[0] == 200]
        levels.append(lambda: not self.control.call("GET", f"/bus/{self.queue}")["messages"])
        levels.append(lambda: json.loads(self.box.ask(80, "GET", "/status.json")[1])["orders"]["to_send"] == 0)
        part = {**self.headers, "Range": "bytes=0-0"}
        levels += [lambda digest=digest: self.box.ask(8003, "GET", f"/v1/media/{digest}", None, part)[0] == 206 for digest in images]
        for level in levels:
            while not level():
                if time.monotonic() > ends:
                    raise RuntimeError(f"not at rest within {DEADLINE_S} s")
                time.sleep(LOOK_S)

    def outage(self, afresh):
        """Seconds to rest: of a box that went through it, or of one that begins `afresh`."""
        self.control.call("PUT", "/offline", {"offline": True})
        work = self.miss()
        if afresh:
            self.box.stop()
            self.control.call("PUT", "/offline", {"offline": False})
            self.start()
            back = time.monotonic()
        else:
            time.sleep(OUTAGE_S)
            self.control.call("PUT", "/offline", {"offline": False})
            back = time.monotonic()
        self.wait_for_rest(work)
        return time.monotonic() - back


@contextlib.contextmanager
def shop(setup, name, weak=False):
    made = Shop(setup, name, weak)
    made.control.call("DELETE", f"/bus/{made.queue}/messages")
    made.start()
    try:
        yield made
    finally:
        made.control.call("PUT", "/offline", {"offline": False})
        made.box.stop()


def measure(setup, report):
    with shop(setup, "weather") as ours:
        ours.outage(afresh=True)  # at temperature
        after, afresh = run_pairs(
            setup.few_pairs, lambda: ours.outage(afresh=False), lambda: ours.outage(afresh=True), setup.note
        )
    with shop(setup, "weather-weak", weak=True) as weak:
        control = weak.outage(afresh=False) / median(afresh)
    if control <= GATE:
        raise RuntimeError(f"a box that waits a minute at once is not caught: {control:.2f}")
    ratio = Ratio([a / b for a, b in zip(after, afresh)])
    report.add(
        Row(
            "R7 at rest after the line's return",
            f"{median(after):.1f} s",
            LOWER,
            peer=f"{median(afresh):.1f} s (the same box, started then)",
            ratio=ratio.text(),
            goal=f"<= {GATE:.0f}x",
            note=f"{OUTAGE_S} s offline; {DOCUMENTS:,} documents, {ORDERS} orders, {REPORTS} reports, {IMAGES * IMAGE_BYTES >> 20} MiB of"
            f" media at 20 Mbit/s; a box that waits a minute at once (control): {control:.1f}x",
            data={"ours": after, "peer": afresh, "ratio": ratio.as_json(), "control": control},
        )
    )
