"""The peer: nginx with the same bytes as static files."""

import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote

import box
import procs

PORT = 8000


class Nginx:
    def __init__(self, setup, core=None):
        self.setup = setup
        self.core = core
        self.dir = Path(setup.run_dir) / "nginx"
        self.html = self.dir / "html"
        self.dir.mkdir(parents=True, exist_ok=True)
        template = (Path(__file__).parent / "nginx.conf.in").read_text(encoding="utf-8")
        conf = template.replace("@DIR@", str(self.dir)).replace("@LISTEN@", f"{setup.peer_addr}:{PORT}")
        (self.dir / "nginx.conf").write_text(conf, encoding="utf-8")
        self.process = None

    def put(self, files):
        """Makes `files`, a dict of URL paths and bytes, what is served."""
        shutil.rmtree(self.html, ignore_errors=True)
        for path, content in files.items():
            file = self.html / unquote(path).lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def start(self, under=(), more=""):
        command = [*under, "nginx", "-p", str(self.dir), "-c", str(self.dir / "nginx.conf")]
        if more:
            command += ["-g", more]
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            preexec_fn=procs.pinned(self.core) if self.core is not None else None,
        )
        return self

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def __enter__(self):
        self.start()
        self.first_answer()
        return self

    def __exit__(self, *_):
        self.stop()

    def first_answer(self):
        return box.first_answer(self.setup.peer_addr, PORT, "/readyz", self.started_at, self.process)

    def worker_pid(self):
        return procs.children(self.process.pid)[-1]

    def pids(self):
        return [self.process.pid, *procs.children(self.process.pid)]

    def cpu_seconds(self):
        return procs.cpu_seconds(self.pids())
