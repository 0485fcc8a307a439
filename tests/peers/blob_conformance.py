"""The emulator's blob storage against Azurite: the same requests, asked of both, must be answered alike.

Azurite is not the service in these, so they are not compared: the suffix range `bytes=-5` (the service documents two forms
only, and the box asks in none other); checksums of ranges; a range that begins exactly at the end (Azurite answers 206 with
`bytes 10-9/10`, the service 416 InvalidRange); the ETag of a 304, which Azurite leaves out.
"""

import json
import os
import pathlib
import subprocess
import tempfile

from report import READY, check, request, trusting

CONTEXT = trusting()
CA_DIR = pathlib.Path(os.environ["CA_FILE"]).parent
BYTES = bytes(range(256)) * 40
SIZE = len(BYTES)
# What a box reads of an answer.
HEADERS = ["Content-Length", "Content-Range", "Content-Type", "x-ms-error-code", "x-ms-blob-type", "Accept-Ranges"]


class Azurite:
    """Azurite and Microsoft's client of it (azurite.js)."""

    def __init__(self):
        script = pathlib.Path(__file__).with_name("azurite.js")
        command = ["node", script, CA_DIR / "leaf.pem", CA_DIR / "leaf.key"]
        environment = {**os.environ, "NODE_PATH": os.environ["AZURITE_MODULES"], "NODE_EXTRA_CA_CERTS": os.environ["CA_FILE"]}
        self.process = subprocess.Popen(
            [str(part) for part in command], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = json.loads(self.process.stdout.readline())["url"]

    def call(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer
        return answer

    def put(self, name, content, container="conform"):
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            self.call(op="put", container=container, name=name, file=file.name, content_type="video/mp4")

    def end(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


class Side:
    """One of the two, with the state (ETag) of its blob."""

    def __init__(self, name, base):
        self.name, self.base, self.etag = name, base, None

    def ask(self, path, method="GET", headers=None):
        """Status, headers a box reads, whether the state is the first one, and the body unless it is an error's text."""
        headers = {name: value.replace("ETAG", self.etag or "") for name, value in (headers or {}).items()}
        status, got, body = request(f"{self.base}/conform/{path}", method, None, headers, context=CONTEXT)
        self.last_etag = got["ETag"]
        seen = {name: got[name] for name in HEADERS}
        if status >= 400:
            # The words of an error, and so its length, are each host's own; its code is not.
            body, seen["Content-Length"], seen["Content-Type"] = b"", None, None
        if status == 304:
            seen = {"x-ms-error-code": seen["x-ms-error-code"]}
        state = None if status >= 300 else got["ETag"] == self.etag
        return status, seen, state, body


CASES = [
    ("whole", "a%20b/film.mp4", "GET", {}),
    ("head", "a%20b/film.mp4", "HEAD", {}),
    ("from the start", "a%20b/film.mp4", "GET", {"Range": "bytes=0-"}),
    ("the first byte", "a%20b/film.mp4", "GET", {"Range": "bytes=0-0"}),
    ("in the middle", "a%20b/film.mp4", "GET", {"Range": "bytes=100-199"}),
    ("on from a byte", "a%20b/film.mp4", "GET", {"Range": "bytes=5000-"}),
    ("the last byte", "a%20b/film.mp4", "GET", {"Range": f"bytes={SIZE - 1}-"}),
    ("over the end", "a%20b/film.mp4", "GET", {"Range": f"bytes=10-{SIZE + 99}"}),
    ("behind the end", "a%20b/film.mp4", "GET", {"Range": f"bytes={SIZE + 5}-"}),
    ("x-ms-range wins", "a%20b/film.mp4", "GET", {"Range": "bytes=0-9", "x-ms-range": "bytes=20-29"}),
    ("the state it is in", "a%20b/film.mp4", "GET", {"If-Match": "ETAG"}),
    ("any state", "a%20b/film.mp4", "GET", {"If-Match": "*"}),
    ("another state", "a%20b/film.mp4", "GET", {"If-Match": '"0x8D0000000000000"'}),
    ("on in its state", "a%20b/film.mp4", "GET", {"Range": "bytes=5000-", "If-Match": "ETAG"}),
    ("on in another state", "a%20b/film.mp4", "GET", {"Range": "bytes=5000-", "If-Match": '"0x8D0000000000000"'}),
    ("unless it is so", "a%20b/film.mp4", "GET", {"If-None-Match": "ETAG"}),
    ("unless it is otherwise", "a%20b/film.mp4", "GET", {"If-None-Match": '"0x8D0000000000000"'}),
    ("head in another state", "a%20b/film.mp4", "HEAD", {"If-Match": '"0x8D0000000000000"'}),
    ("a blob that is not there", "none.mp4", "GET", {}),
    ("head of one that is not there", "none.mp4", "HEAD", {}),
    ("an empty one", "empty.mp4", "GET", {}),
]

# The emulator's storage account.
ACCOUNT = {"account": "simplementedata", "account_key": "Y29tcHRvaXIgdGVzdCBhY2NvdW50IGtleQ=="}
# Azurite's one answer to whatever it does not believe. The service's documented one is AuthenticationFailed.
AZURITES = 403, "AuthorizationFailure"
# Terms, what is changed in the query afterwards, and the answer; the last column is Azurite's where it is another.
SIGNATURES = [
    ("good", {"for_s": 60}, str, 206, None, None),
    ("over", {"for_s": -10}, str, 403, "AuthenticationFailed", AZURITES),
    ("not begun", {"for_s": 60, "from_s": 30}, str, 403, "AuthenticationFailed", AZURITES),
    ("without the right to read", {"for_s": 60, "permissions": "l"}, str, 403, "AuthorizationPermissionMismatch", None),
    ("made longer", {"for_s": -10}, lambda sas: sas.replace("se=20", "se=21"), 403, "AuthenticationFailed", AZURITES),
    ("none", None, str, 404, "ResourceNotFound", AZURITES),
]

azurite = Azurite()
try:
    azurite.call(op="container", container="conform", access="blob")
    sides = [Side("Azurite", azurite.url), Side("emulator", READY["blob_url"])]

    def put_both(name, content):
        azurite.put(name, content)
        path = "/".join(part.replace(" ", "%20") for part in name.split("/"))
        url = f"{READY['control_url']}/control/blobs/conform/{path}"
        status, _, body = request(url, "PUT", content, {"Content-Type": "video/mp4"})
        assert status == 200, body

    put_both("a b/film.mp4", BYTES)
    put_both("empty.mp4", b"")
    for side in sides:
        side.ask("a%20b/film.mp4", "HEAD")
        side.etag = side.last_etag
    for name, path, method, headers in CASES:
        with check(f"blobs like Azurite: {name}"):
            real, ours = (side.ask(path, method, headers) for side in sides)
            assert real == ours, f"Azurite {real[:3]}, emulator {ours[:3]}"
    with check("blobs like the service: a range that begins at the end is none"):
        emulator = sides[1]
        for path, size in [("a%20b/film.mp4", SIZE), ("empty.mp4", 0)]:
            status, seen, _, _ = emulator.ask(path, "GET", {"Range": f"bytes={size}-"})
            answer = status, seen["x-ms-error-code"], seen["Content-Range"]
            assert answer == (416, "InvalidRange", f"bytes */{size}"), answer
    with check("blobs like Azurite: a state is strong, quoted and another after each write"):
        put_both("a b/film.mp4", BYTES)
        for side in sides:
            assert side.etag.startswith('"0x') and side.etag.endswith('"'), side.etag
            status, _, is_first, _ = side.ask("a%20b/film.mp4", "GET", {"Range": "bytes=1-", "If-Match": "ETAG"})
            assert (status, is_first) == (412, None), f"{side.name}: {status}"
    azurite.call(op="container", container="closed", access=None)
    azurite.put("film.mp4", BYTES, "closed")
    status, _, body = request(f"{READY['control_url']}/control/containers/closed", "PUT", b'{"access":null}')
    assert status == 204, body
    status, _, body = request(f"{READY['control_url']}/control/blobs/closed/film.mp4", "PUT", BYTES)
    assert status == 200, body
    for name, terms, change, status, code, azurites in SIGNATURES:
        with check(f"blobs by a signature of Microsoft's client: {name}"):
            answers = []
            for base, account in [(azurite.url, {}), (READY["blob_url"], ACCOUNT)]:
                sas = terms and azurite.call(op="sign", container="closed", **terms, **account)["sas"]
                url = f"{base}/closed/film.mp4?{change(sas or '')}"
                got, headers, body = request(url, "GET", None, {"Range": "bytes=5000-"}, context=CONTEXT)
                answers.append((got, headers["x-ms-error-code"], body if got < 400 else b""))
            real, ours = answers
            assert ours == (status, code, BYTES[5000:] if status < 400 else b""), ours[:2]
            assert real[:2] == (azurites or (status, code)), real[:2]
            assert azurites or real == ours
finally:
    azurite.end()
