"""P11: memory of server and supervisor together (PSS): idle, and busy with the catalogue and 64 connections."""

import time

import procs
from report import LOWER, Row
from rows.pull import full_box
from rows.serve import CONNECTIONS, Load

IDLE_S = 10
BUSY_S = 6


def measure(setup, report):
    with full_box(setup) as box:
        box.first_answer()
        time.sleep(IDLE_S / 2)
        cpu = box.cpu_seconds()
        time.sleep(IDLE_S / 2)
        idle = procs.pss_kib(box.pids()) / 1024
        cpu_share = (box.cpu_seconds() - cpu) / (IDLE_S / 2)
        parts = {"supervisor": procs.pss_kib([box.process.pid]), "server": procs.pss_kib([box.server_pid()])}
        load = Load(setup, box)
        client = load.start(f"http://{setup.box_addr}:8000", "barcode", BUSY_S)
        time.sleep(BUSY_S - 1)
        busy = procs.pss_kib(box.pids()) / 1024
        client.wait()
    _row(report, "P11 memory, idle", idle, 12, 8, f"{IDLE_S} s after its start, catalogue in; {cpu_share:.1%} of a core used", parts)
    _row(report, f"P11 memory, busy, {CONNECTIONS} connections", busy, 48, 32, f"{setup.count:,} documents, GET by barcode", {})


def _row(report, name, mib, gate, stretch, note, parts):
    report.add(
        Row(
            name,
            f"{mib:.1f} MiB PSS",
            LOWER,
            peer=f"{gate} MiB (gate)",
            ratio=f"{mib / gate:.2f}",
            goal=f"<= {gate} MiB, {stretch} MiB",
            note=note,
            data={"mib": mib, "parts_kib": parts},
        )
    )
