"""The box as a process of this machine: started as on the device, by its supervisor."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import procs

START_DEADLINE_S = 60
CONNECT_S = 5
PULL_DEADLINE_S = 900


class Box:
    """`setup` is what scripts/bench prepared; `name` a data folder of its own."""

    def __init__(self, setup, name, core=None, extra=""):
        self.setup = setup
        self.core = core
        self.dir = Path(setup.run_dir) / name
        self.dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.dir / "data"
        self.log = self.dir / "box.log"
        self.site_file = self.dir / "site.toml"
        site = Path(setup.site_file).read_text(encoding="utf-8")
        site = site.replace("@DATA_DIR@", str(self.data_dir)) + extra
        self.site_file.touch(mode=0o600)
        self.site_file.write_text(site, encoding="utf-8")
        shutil.copy(Path(setup.site_file).parent / "ca.pem", self.dir / "ca.pem")
        self.process = None

    def wipe(self):
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def check_settings(self):
        """Ends the whole run, in the box's own words, when it refuses its settings: it would serve with others instead."""
        command = [self.setup.binary, "setup", "import", "--from", str(self.dir), "--image-file", str(self.dir / "none")]
        taken = self.dir / "taken"
        shutil.rmtree(taken, ignore_errors=True)
        taken.mkdir()
        tried = subprocess.run([*command, "--site-file", str(taken / "site.toml")], capture_output=True, text=True)
        if tried.returncode:
            raise SystemExit(f"the box refuses {self.site_file}:\n{tried.stderr.strip()}")

    def start(self):
        self.check_settings()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log_from = self.log.stat().st_size if self.log.exists() else 0
        command = [self.setup.binary, "supervise", "--image-file", str(self.dir / "none"), "--site-file", str(self.site_file)]
        with open(self.log, "ab") as log:
            self.started_at = time.monotonic()
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, preexec_fn=procs.pinned(self.core) if self.core is not None else None
            )
        return self

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def kill_all(self):
        """As a power cut would end it, as far as a process can tell."""
        server = self.server_pid()
        for pid in (self.process.pid, server):
            # The server may go with its supervisor.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        self.process = None
        while Path(f"/proc/{server}").exists():
            time.sleep(0.001)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def server_pid(self):
        return procs.children(self.process.pid)[-1]

    def pids(self):
        return [self.process.pid, *procs.children(self.process.pid)]

    def cpu_seconds(self):
        return procs.cpu_seconds(self.pids())

    def first_answer(self, port=80, path="/readyz", since=None):
        """Seconds until `path` is answered 200: a new connection for each try, a millisecond between two."""
        since = self.started_at if since is None else since
        return first_answer(self.setup.box_addr, port, path, since, self.process)

    def wait_logged(self, event, deadline_s=PULL_DEADLINE_S):
        """Waits for a line in the box's log: costs the box nothing. The line as an object."""
        end = time.monotonic() + deadline_s
        with open(self.log, encoding="utf-8", errors="replace") as log:
            log.seek(self.log_from)
            partial = ""
            while time.monotonic() < end:
                partial += log.readline()
                if not partial.endswith("\n"):
                    if self.process.poll() is not None:
                        raise RuntimeError(f"the box ended: see {self.log}")
                    time.sleep(0.005)
                    continue
                if f'"{event}"' in partial:
                    return json.loads(partial)
                partial = ""
        raise RuntimeError(f"no {event} within {deadline_s} s: see {self.log}")

    def logged(self, event):
        """Whether a line with `event` stands in the log since the start."""
        with open(self.log, "rb") as log:
            log.seek(self.log_from)
            return f'"{event}"'.encode() in log.read()

    def token(self):
        """A device token; pairs a device of the bench's own once per data folder."""
        kept = self.data_dir / "bench-token"
        if not kept.exists():
            body = json.dumps({"code": self.setup.claim_code, "name": "bench", "role": "developer"})
            status, answer = self.ask(8004, "POST", "/v1/pair", body, {"Content-Type": "application/json"})
            if status != 201:
                raise RuntimeError(f"pairing was answered {status}: {answer!r}")
            kept.write_text(json.loads(answer)["token"], encoding="ascii")
        return kept.read_text(encoding="ascii")

    def ask_many(self, port, paths, headers):
        """GETs all paths over one connection; their bodies by path."""
        connection = http.client.HTTPConnection(self.setup.box_addr, port, timeout=30)
        bodies = {}
        for path in paths:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            bodies[path] = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{path} was answered {answer.status}")
        connection.close()
        return bodies

    def ask(self, port, method, path, body=None, headers=None, address=None):
        connection = http.client.HTTPConnection(address or self.setup.box_addr, port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def first_answer(host, port, path, since, process, deadline_s=START_DEADLINE_S):
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    while time.monotonic() - since < deadline_s:
        try:
            with socket.create_connection((host, port), timeout=CONNECT_S) as connection:
                connection.sendall(request)
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return time.monotonic() - since
        except OSError:
            pass
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before its first answer")
        time.sleep(0.001)
    raise RuntimeError(f"no 200 on {path} within {deadline_s} s")
