"""One line a check: `ok NAME` or `FAILED NAME: why`."""

import contextlib
import json
import os
import ssl
import urllib.request

READY = json.load(open(os.environ["READY_FILE"], encoding="utf-8"))
CONTROL = READY["control_url"] + "/control"


@contextlib.contextmanager
def check(name):
    """Reports the block under it as one check; a failed one does not stop the next."""
    try:
        yield
    except Exception as error:  # whatever goes wrong is this check's result
        print(f"FAILED {name}: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
    else:
        print(f"ok {name}", flush=True)


def request(url, method="GET", body=None, headers=None, context=None):
    """Status, headers and body of one request; statuses above 399 are no exceptions."""
    made = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        answer = opener.open(made, timeout=90)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, answer.read()


def control(method, path, value=None):
    """One call of the emulator's control API; fails unless it is answered 2xx."""
    body = json.dumps(value).encode() if value is not None else b""
    status, _, answer = request(CONTROL + path, method, body, {"Content-Type": "application/json"})
    assert 200 <= status < 300, f"{method} {path}: {status} {answer!r}"
    return json.loads(answer) if answer else None


def trusting():
    """A TLS context that trusts the emulator's CA and nothing else."""
    return ssl.create_default_context(cafile=os.environ["CA_FILE"])
