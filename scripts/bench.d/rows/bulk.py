"""A very large catalogue: a million documents, two gigabytes of JSON, made by the platform's stand-in and pulled once.

Not among the rows that run by default: it takes minutes and some gigabytes of disk. `--count` does not touch it.
"""

import time

import procs
from box import Box
from control import Control
from report import HIGHER, LOWER, Row

DOCUMENTS = 1_000_000
BYTES = 2_000
LOOK_S = 0.5
GATE_MIB = 48
DEADLINE_S = 3600


def measure(setup, report):
    control = Control(setup.platform_addr)
    control.ask("POST", "/documents/bulk/generate", {"count": DOCUMENTS, "bytes": BYTES})
    box = Box(setup, "bulk", setup.server_core)
    box.wipe()
    peak = {"pss": 0, "rss": 0, "anon": 0}
    with box:
        box.first_answer()
        first = time.monotonic()
        while not box.logged("pull.snapshot_finished"):
            _look(box, peak)
            if time.monotonic() - first > DEADLINE_S:
                raise RuntimeError(f"not pulled within {DEADLINE_S} s")
            time.sleep(LOOK_S)
        wall, cpu = time.monotonic() - box.started_at, box.cpu_seconds()
    finished = box.wait_logged("pull.snapshot_finished")
    fields = finished.get("fields", finished)
    box.wipe()
    note = f"{fields['documents']:,} documents of {BYTES} B; PSS read every {LOOK_S} s"
    report.add(
        Row(
            "memory while two gigabytes are pulled, peak",
            f"{peak['pss'] / 1024:.1f} MiB PSS",
            LOWER,
            peer=f"{GATE_MIB} MiB (gate of P11, busy)",
            ratio=f"{peak['pss'] / 1024 / GATE_MIB:.2f}",
            goal=f"<= {GATE_MIB} MiB",
            note=f"{note}; of it {peak['anon'] / 1024:.1f} MiB anonymous; RSS of the server {peak['rss'] / 1024:.1f} MiB",
            data=dict(peak),
        )
    )
    report.add(
        Row(
            "pull of two gigabytes",
            f"{fields['documents'] / cpu:,.0f} documents/CPU-s",
            HIGHER,
            note=f"{wall:,.0f} s, {fields['documents'] / wall:,.0f} documents/s, {fields['bytes'] / 1e6:,.0f} MB as sent",
            data={"wall_s": wall, "cpu_s": cpu, "documents": fields["documents"], "sent_bytes": fields["bytes"]},
        )
    )


def _look(box, peak):
    pids = box.pids()
    peak["pss"] = max(peak["pss"], procs.pss_kib(pids))
    server = procs.status_kib(box.server_pid(), ("VmRSS", "RssAnon"))
    peak["rss"] = max(peak["rss"], server["VmRSS"])
    peak["anon"] = max(peak["anon"], server["RssAnon"])
