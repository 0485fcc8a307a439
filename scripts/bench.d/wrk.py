"""The load: wrk on the client's core, with the requests of a file or made by a script."""

import json
import os
import subprocess
from pathlib import Path

import procs

HERE = Path(__file__).parent
MARK = "bench-result "


def start(setup, url, script, connections, seconds, **env):
    """Starts wrk; `finish` gives its figures."""
    return subprocess.Popen(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(HERE / script), url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **{name: str(value) for name, value in env.items()}},
        preexec_fn=procs.pinned(setup.client_core),
    )


def finish(process):
    """Requests, seconds, bytes, errors, and latencies in milliseconds. An error spoils a measurement, so it raises."""
    output, _ = process.communicate()
    for line in output.splitlines():
        if line.startswith(MARK):
            figures = json.loads(line[len(MARK) :])
            if figures["errors"]:
                raise RuntimeError(f"{figures['errors']} requests failed: {output}")
            return figures
    raise RuntimeError(f"wrk said no result: {output}")


def run(*arguments, **env):
    return finish(start(*arguments, **env))
