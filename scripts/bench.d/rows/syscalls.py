"""System calls per request (strace), and instructions per request where valgrind is installed. Free of noise."""

import glob
import http.client
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import wrk
from nginx import PORT, Nginx
from report import LOWER, Row
from rows import orders
from rows.pull import filled_box
from rows.serve import Load

SECONDS = 3
INSTRUCTION_REQUESTS = 2000
FLUSHES = ("fsync", "fdatasync", "sync_file_range", "syncfs")


def measure(setup, report):
    with filled_box(setup, "traced", setup.server_core, orders.NO_PUSH) as box:
        box.first_answer()
        load = Load(setup, box)
        peer = Nginx(setup, setup.server_core)
        peer.put(load.answers)
        with peer:
            theirs = _traced(setup, peer.worker_pid(), lambda: load.run(setup.peer_addr, "id", SECONDS))
        ours = _traced(setup, box.server_pid(), lambda: load.run(setup.box_addr, "id", SECONDS))
        _row(report, "system calls per GET by id", ours, theirs)
        for connections, name in ((1, "one writer"), (orders.WRITERS, f"{orders.WRITERS} writers")):
            calls = _traced(setup, box.server_pid(), lambda: orders.post(setup, box, connections, SECONDS))
            _row(report, f"system calls per durable order, {name}", calls)
    if shutil.which("valgrind"):
        _instructions(setup, report, load, box)
    else:
        report.add(Row("instructions per GET by id", "not measured", LOWER, note="valgrind is not installed"))


def _traced(setup, pid, run):
    """Calls per request by name, and their sum as `total`."""
    out = Path(setup.run_dir) / "strace.txt"
    tracer = subprocess.Popen(
        ["strace", "-c", "-f", "-p", str(pid), "-o", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    tracer.stderr.readline()  # "… attached"
    figures = run()
    tracer.send_signal(signal.SIGINT)
    tracer.communicate()
    calls = {}
    for line in out.read_text(encoding="ascii").splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdigit():
            calls[words[-1]] = int(words[3]) / figures["requests"]
    return calls


def _row(report, name, calls, peer=None):
    top = sorted((count, call) for call, count in calls.items() if call != "total")[::-1]
    flushes = sum(calls.get(call, 0) for call in FLUSHES)
    said = [f"{call} {count:.2f}" for count, call in top[:6]]
    if flushes >= 0.01:
        said.insert(0, f"flushes {flushes:.2f}")
    report.add(
        Row(
            name,
            f"{calls['total']:.2f}",
            LOWER,
            peer=f"{peer['total']:.2f} (nginx)" if peer else "",
            ratio=f"{calls['total'] / peer['total']:.2f}" if peer else "",
            note=", ".join(said),
            data={"ours": calls, "peer": peer},
        )
    )


def _instructions(setup, report, load, box):
    headers = {"Authorization": f"Bearer {load.token}"}
    drawn = load.files["id"].read_text(encoding="utf-8").split()[:INSTRUCTION_REQUESTS]
    folder = Path(setup.run_dir) / "callgrind"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def under(name):
        return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/{name}"]

    server = [setup.binary, "serve", "--image-file", str(box.dir / "none"), "--site-file", str(box.site_file)]
    peer = Nginx(setup)
    figures = {}
    for name, address, start in (
        ("box", setup.box_addr, lambda: subprocess.Popen(under("box") + server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)),
        ("nginx", setup.peer_addr, lambda: peer.start(under("nginx"), "master_process off;").process),
    ):
        process = start()
        try:
            figures[name] = _count(folder, name, process, address, drawn, headers)
        finally:
            process.terminate()
            process.wait(60)
    report.add(
        Row(
            "instructions per GET by id",
            f"{figures['box']:,.0f}",
            LOWER,
            peer=f"{figures['nginx']:,.0f} (nginx)",
            ratio=f"{figures['box'] / figures['nginx']:.2f}",
            note="in user space, by callgrind, one connection",
            data=figures,
        )
    )


def _count(folder, name, process, address, drawn, headers):
    connection = http.client.HTTPConnection(address, PORT, timeout=60)
    _connect(connection)

    def ask():
        for path in drawn:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{path} was answered {answer.status}")

    ask()  # at temperature
    subprocess.run(["callgrind_control", "-z", str(process.pid)], check=True, capture_output=True)
    ask()
    subprocess.run(["callgrind_control", "-d", str(process.pid)], check=True, capture_output=True)
    counted = [re.search(r"^(?:totals|summary): (\d+)", Path(file).read_text(), re.M) for file in glob.glob(f"{folder}/{name}*")]
    return max(int(found[1]) for found in counted if found) / len(drawn)


def _connect(connection, deadline_s=60):
    end = time.monotonic() + deadline_s
    while True:
        try:
            return connection.connect()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
