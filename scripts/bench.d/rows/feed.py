"""P6: what following the platform costs on the wire: nothing new, and one document of a thousand changed.

A meter stands between box and platform and counts bytes of TCP, TLS included. The poll is held a second here instead of
half a minute: that changes how often it happens, not what it costs.
"""

import json
import time
from statistics import median
from urllib.parse import quote

import procs
from box import Box
from control import Control
from report import LOWER, Row
from rows.pull import filled_box
from rows.syscalls import FLUSHES, _traced
from wire import PORT, Meter

POLL_S = 1
POLLS = 12
SETTLE_S = 3
DEADLINE_S = 300
API_PORT = 8443
ONLY_PULL = f"""
[wan.pull]
wait_s = {POLL_S}
[wan.push]
enabled = false
[wan.media]
enabled = false
"""


def _over_the_meter(box, address):
    text = box.site_file.read_text(encoding="utf-8")
    metered = text.replace(f"https://{address}:{API_PORT}", f"https://{address}:{PORT}")
    if metered == text:
        raise RuntimeError("the site file names no platform to put the meter before")
    metered = metered.replace("[wan.bus]\n", "[wan.bus]\nenabled = false\n")
    box.site_file.write_text(metered, encoding="utf-8")
    return box


def measure(setup, report):
    address = setup.platform_addr
    control = Control(address)
    with Meter(address, API_PORT) as meter:
        empty = _over_the_meter(Box(setup, "metered-full", setup.server_core, ONLY_PULL), address)
        empty.wipe()
        with empty:
            finished = empty.wait_logged("pull.snapshot_finished")
        full = meter.total()
        documents = finished.get("fields", finished)["documents"]
        box = _over_the_meter(filled_box(setup, "metered", setup.server_core, ONLY_PULL), address)
        with box:
            box.first_answer()
            _nothing_new(report, box, meter, control)
            token = box.token()
        _some_changes(report, box, meter, control, token, full, documents)


def _nothing_new(report, box, meter, control):
    time.sleep(SETTLE_S)
    costs = []

    def polls():
        for _ in range(POLLS):
            before, bytes_before = control.asked("/feed")[1], meter.total()
            _until(lambda before=before: control.asked("/feed")[1] >= before + 2)
            asked = control.asked("/feed")[1] - before
            costs.append((meter.total() - bytes_before) / asked)
        return {"requests": POLLS}

    written = procs.io_counts(box.server_pid())["write_bytes"]
    calls = _traced(box.setup, box.server_pid(), polls)
    written = procs.io_counts(box.server_pid())["write_bytes"] - written
    flushes = sum(calls.get(call, 0) for call in FLUSHES)
    report.add(
        Row(
            "P6 no-op pull, bytes on the wire",
            f"{median(costs):,.0f} B",
            LOWER,
            peer="2,048 B (gate)",
            ratio=f"{median(costs) / 2048:.2f}",
            goal="<= 2 KB and no flush",
            note=f"{flushes:.2f} flushes and {written / POLLS:,.0f} bytes written a poll; the connection stays",
            data={"bytes": costs, "flushes_per_poll": flushes, "written_bytes": written},
        )
    )


def _some_changes(report, box, meter, control, token, full, documents):
    """Changed while the box was away: a new connection and the pages of the feed."""
    ids = _some_ids(box, token, max(1, documents // 1000))
    for name in ids:
        data = control.ask("GET", f"/documents/products/{name}")["data"]
        control.ask("PUT", f"/documents/products/{name}", {**data, "benched": time.time()})
    last = control.ask("GET", f"/documents/products/{ids[-1]}")["version"]
    before = meter.total()
    with box:
        box.first_answer()
        headers = {"Authorization": f"Bearer {token}"}

        def arrived():
            status, body = box.ask(8000, "GET", f"/v1/documents/products/{ids[-1]}", headers=headers)
            return status == 200 and f'"version":{last}' in body[:400].decode("utf-8", "replace")

        _until(arrived)
        cost = meter.total() - before
    report.add(
        Row(
            "P6 pull of 0.1 % changes, of the full pull's bytes",
            f"{cost / full:.3%}",
            LOWER,
            peer="0.5 % (gate)",
            ratio=f"{cost / full / 0.005:.2f}",
            goal="<= 0.5 % of full bytes",
            note=f"{cost:,} B for {len(ids)} documents, handshake included; {full:,} B for all {documents:,}",
            data={"bytes": cost, "full_bytes": full, "changed": len(ids)},
        )
    )


def _some_ids(box, token, count):
    """Ids of products, as they stand in a path, spread over the list."""
    with box:
        box.first_answer()
        ids, after = [], ""
        headers = {"Authorization": f"Bearer {token}"}
        while len(ids) < count:
            path = f"/v1/documents/products?limit=1000&after={after}"
            page = json.loads(box.ask(8000, "GET", path, headers=headers)[1])
            ids += [quote(item["id"], safe="") for item in page["items"][: max(1, count // 10)]]
            if not page["next"]:
                break
            after = quote(page["next"], safe="")
    return ids[:count]


def _until(reached):
    end = time.monotonic() + DEADLINE_S
    while not reached():
        if time.monotonic() > end:
            raise RuntimeError(f"not reached within {DEADLINE_S} s")
        time.sleep(0.01)
