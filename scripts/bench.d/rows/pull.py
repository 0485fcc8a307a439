"""P5: the first pull of the whole catalogue, against `sqlite3 .import` of the same rows into the same schema.

The box is on one core, the platform's stand-in on the other. Theirs reads CSV from a file, ours speaks TLS to a
platform, unpacks, checks and parses JSON: the goal of the scoreboard knows that.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

import procs
import readers
from box import Box
from report import HIGHER, LOWER, Row
from stats import Ratio, run_pairs

READ_PULLS = 4  # at least
SETTLE_S = 3
IDLE_S = 10
MARK = "bench-pulled-by"
TABLES = ("documents", "barcodes", "collections", "facts")


def full_box(setup, core=None):
    """A box whose data folder holds the whole catalogue; pulls it when it does not yet."""
    full = Box(setup, "full", core)
    mark = full.data_dir / MARK
    if not mark.exists() or mark.read_text(encoding="ascii") != _build(setup):
        full.wipe()
        with full:
            full.wait_logged("pull.snapshot_finished")
            full.token()
        mark.write_text(_build(setup), encoding="ascii")
    return full


def _build(setup):
    """Names the binary: what another one left may be of another schema."""
    with open(setup.binary, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def filled_box(setup, name, core=None, extra=""):
    """A box of its own that starts with the whole catalogue; `extra` settings go to its site file."""
    source = full_box(setup).data_dir
    copy = Box(setup, name, core, extra)
    copy.wipe()
    shutil.copytree(source, copy.data_dir)
    return copy


def _pull(setup, keep):
    pulling = Box(setup, "full", setup.server_core)
    pulling.wipe()
    pulling.start()
    try:
        finished = pulling.wait_logged("pull.snapshot_finished")
        wall, cpu = time.monotonic() - pulling.started_at, pulling.cpu_seconds()
        # tracing puts an event's fields beside it or below "fields".
        documents = finished.get("fields", finished)["documents"]
        keep["pss_kib"] = procs.pss_kib(pulling.pids())
        pulling.token()
    finally:
        pulling.stop()
    (pulling.data_dir / MARK).write_text(_build(setup), encoding="ascii")
    return {"documents": documents, "wall_s": wall, "cpu_s": cpu}


class Importer:
    """sqlite3 with the schema, the rows and the settings of the box's own catalogue."""

    def __init__(self, setup):
        self.dir = Path(setup.run_dir) / "import"
        self.dir.mkdir(exist_ok=True)
        self.core = setup.server_core
        source = Box(setup, "full").data_dir / "catalogue.db"
        schema = self._sqlite(source, ".schema --nosys")
        for table in TABLES:
            with open(self.dir / f"{table}.csv", "wb") as out:
                out.write(self._sqlite(source, ".mode csv", f"SELECT * FROM {table};"))
        script = "PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;\n"
        script += "PRAGMA synchronous=NORMAL; PRAGMA cache_size=-4096;\n" + schema.decode() + "\n.mode csv\n"
        script += "".join(f".import {self.dir}/{table}.csv {table}\n" for table in TABLES)
        (self.dir / "import.sql").write_text(script, encoding="utf-8")

    @staticmethod
    def _sqlite(database, *commands):
        return subprocess.run(["sqlite3", "-batch", str(database), *commands], check=True, capture_output=True).stdout

    def run(self):
        database = self.dir / "catalogue.db"
        for suffix in ("", "-wal", "-shm"):
            Path(f"{database}{suffix}").unlink(missing_ok=True)
        started = time.monotonic()
        with open(self.dir / "import.sql", "rb") as script:
            process = subprocess.Popen(
                ["sqlite3", "-batch", "-bail", str(database)],
                stdin=script,
                stdout=subprocess.DEVNULL,
                preexec_fn=procs.pinned(self.core),
            )
            _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        documents = int(self._sqlite(database, "SELECT count(*) FROM documents;"))
        if process.returncode or not documents:
            raise RuntimeError("sqlite3 .import failed")
        return {"documents": documents, "wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime}


def measure(setup, report):
    keep = {}
    # The first one is not counted: it brings the platform's and this machine's caches to temperature.
    _pull(setup, keep)
    importer = Importer(setup)
    ours, theirs = run_pairs(setup.few_pairs, lambda: _pull(setup, keep), importer.run, setup.note)
    pairs = list(zip(ours, theirs))

    def row(name, key, goal, note):
        def rate(side):
            return side["documents"] / side[key]

        ratio = Ratio([rate(a) / rate(b) for a, b in pairs])
        middle = [sorted(rate(side) for side in sides)[len(sides) // 2] for sides in (ours, theirs)]
        report.add(
            Row(
                name,
                f"{middle[0]:,.0f} documents/s",
                HIGHER,
                peer=f"{middle[1]:,.0f} (sqlite3 .import)",
                ratio=ratio.text(),
                goal=goal,
                note=note,
                data={"ours": ours, "peer": theirs, "ratio": ratio.as_json()},
            )
        )

    cpu_note = f"box with supervisor, from its start to the last commit; {ours[0]['documents']:,} documents"
    row("P5 first pull, per CPU-second", "cpu_s", ">= 0.8, 1.0", cpu_note)
    row("P5 first pull, per second", "wall_s", "", "TLS, gzip and JSON included for the box, CSV from a file for sqlite3")
    _readers_meanwhile(setup, report)
    report.facts["PSS right after the first pull"] = f"{keep['pss_kib'] / 1024:.1f} MiB"


def _readers_meanwhile(setup, report):
    """A device that reads what is there while the rest comes in, and the same device afterwards."""
    busy, idle, waits = [], [], {"during": [], "idle": []}
    for _ in range(max(READ_PULLS, setup.few_pairs)):
        pulling = Box(setup, "read", setup.server_core)
        pulling.wipe()
        with pulling:
            pulling.first_answer()
            paths = readers.first_documents(pulling)
            with _core_waits(pulling, waits["during"]):
                meanwhile = readers.read(pulling, paths, lambda: pulling.logged("pull.snapshot_finished"))
            pulling.wait_logged("pull.snapshot_finished")
            time.sleep(SETTLE_S)
            end = time.monotonic() + IDLE_S
            with _core_waits(pulling, waits["idle"]):
                afterwards = readers.read(pulling, paths, lambda: time.monotonic() > end)
        busy.append(readers.p99_ms(meanwhile))
        idle.append(readers.p99_ms(afterwards))
    ratio = Ratio([a / b for a, b in zip(busy, idle)])
    report.add(
        Row(
            "P5 readers' p99 during the first pull",
            f"{sorted(busy)[len(busy) // 2]:.2f} ms",
            LOWER,
            peer=f"{sorted(idle)[len(idle) // 2]:.2f} ms (idle)",
            ratio=ratio.text(),
            goal="<= 1.5 of idle",
            note=f"one device, {1 / readers.PERIOD_S:.0f} GETs a second, constant rate; box on one core, device and platform on"
            f" the other, both times; LAN threads waited {median(waits['during']):.3f} ms for the core at each turn,"
            f" idle {median(waits['idle']):.3f}",
            data={"during_ms": busy, "idle_ms": idle, "ratio": ratio.as_json(), "lan_waits_ms": waits},
        )
    )


@contextlib.contextmanager
def _core_waits(box, means):
    """Adds to `means` how long the server's LAN threads waited for a core at each turn meanwhile, in milliseconds."""
    waited, turns = procs.core_waits(box.server_pid(), "lan")
    yield
    waited_then, turns_then = procs.core_waits(box.server_pid(), "lan")
    means.append((waited_then - waited) / max(1, turns_then - turns) * 1e3)
