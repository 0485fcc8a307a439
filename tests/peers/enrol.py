"""Enrolment as a stranger's box does it, with another Ed25519, judged by openapi.yaml; and a stranger's eye on what is signed."""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse

import jsonschema
import yaml
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from report import READY, check, control, request, trusting

SPEC = yaml.safe_load(open(os.environ["SPEC"], encoding="utf-8"))
ENROL_URL = f"{READY['api_url']}/v1/enrol"
CONTEXT = trusting()
CODE = "Peer-Code 42"


def must_be(schema, value):
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": SPEC["components"]}
    ).validate(value)


def b64(data):
    return base64.b64encode(data).decode()


def claim_proof(code, public_key):
    plain = re.sub(r"[\s-]", "", code).lower().encode()
    return hashlib.pbkdf2_hmac("sha256", plain, b"comptoir-claim-v1" + public_key, 20000)


def signed_text(box_id, nonce, at, body):
    return "\n".join(["comptoir-enrol-v1", box_id, nonce, at, hashlib.sha256(body).hexdigest()]).encode()


class StrangersBox:
    def __init__(self):
        self.key = Ed25519PrivateKey.generate()
        self.public = self.key.public_key().public_bytes_raw()
        self.box_id = "box-" + hashlib.sha256(self.public).hexdigest()[:12]

    def nonce(self):
        status, _, body = request(ENROL_URL + "/nonce", context=CONTEXT)
        assert status == 200
        return json.loads(body)["nonce"]

    def ask(self, wait_s=0, nonce=None, skew_s=0, **changes):
        introduction = {
            "box_id": self.box_id,
            "public_key": b64(self.public),
            "version": "stranger 1",
            "claim": b64(claim_proof(CODE, self.public)),
            **changes,
        }
        body = json.dumps(introduction).encode()
        nonce, at = nonce or self.nonce(), str(int(time.time()) + skew_s)
        signature = self.key.sign(signed_text(self.box_id, nonce, at, body))
        headers = {
            "Content-Type": "application/json",
            "Comptoir-Nonce": nonce,
            "Comptoir-At": at,
            "Comptoir-Signature": b64(signature),
        }
        url = f"{ENROL_URL}?wait_s={wait_s}"
        status, _, answer = request(url, "POST", body, headers, CONTEXT)
        answer = json.loads(answer)
        must_be("Enrolment" if status == 200 else "Problem", answer)
        return status, answer


def refused(outcome, status, kind):
    assert outcome[0] == status, outcome
    assert outcome[1]["type"] == f"urn:comptoir:{kind}", outcome


def feed_status(token):
    url = f"{READY['api_url']}/v1/sites/{os.environ['SITE']}/snapshot"
    return request(url, headers={"Authorization": f"Bearer {token}"}, context=CONTEXT)[0]


BOX = StrangersBox()
HANDED_OUT = {}

with check("enrol: a stranger's box shows itself and waits"):
    status, answer = BOX.ask()
    assert (status, answer["state"]) == (200, "waiting"), answer

with check("enrol: a nonce is good once, and only ours"):
    nonce = BOX.nonce()
    assert BOX.ask(nonce=nonce)[0] == 200
    refused(BOX.ask(nonce=nonce), 401, "nonce")
    refused(BOX.ask(nonce="bm90IG91cnM="), 401, "nonce")

with check("enrol: another's key, another's id and a time far off are refused"):
    other = StrangersBox()
    refused(BOX.ask(public_key=b64(other.public)), 401, "signature")
    refused(BOX.ask(box_id=other.box_id), 401, "signature")
    refused(BOX.ask(skew_s=3600), 401, "clock")

with check("enrol: claimed by the code however it is typed, a wrong one claims nothing"):
    status, _, _ = request(
        READY["control_url"] + "/control/enrol/claim", "POST", json.dumps({"code": "peercode43"}).encode()
    )
    assert status == 404, status
    assert control("POST", "/enrol/claim", {"code": "PEERCODE42"})["box_id"] == BOX.box_id
    status, answer = BOX.ask(wait_s=10)
    assert (status, answer["state"]) == (200, "claimed"), answer
    HANDED_OUT = answer["credentials"]
    assert HANDED_OUT["site_id"] == os.environ["SITE"]

with check("enrol: the token opens the API, the signature this site's queue and no other"):
    assert feed_status(HANDED_OUT["api"]["token"]) == 200
    bus = {"Authorization": HANDED_OUT["bus"]["sas"]}
    entity = HANDED_OUT["bus"]["entity"]
    # A message may wait there from another check: it is the way in that counts.
    for queue, expected in [(entity, (201, 204)), ("q1", (401,))]:
        url = f"{READY['bus_url']}/{queue}/messages/head?timeout=0"
        status, _, _ = request(url, "POST", b"", {**bus, "Content-Length": "0"}, CONTEXT)
        assert status in expected, (queue, status)

with check("enrol: the support signature sends to its own queue, a batch as the box does, and opens no other"):
    support = HANDED_OUT["support"]
    event = json.dumps([{"Body": "{}", "BrokerProperties": {"MessageId": "peer-1"}}]).encode()
    headers = {
        "Authorization": support["sas"],
        "Content-Type": "application/vnd.microsoft.servicebus.json",
    }
    for queue, expected in [(support["entity"], 201), (HANDED_OUT["bus"]["entity"], 401), ("q1", 401)]:
        url = f"{READY['bus_url']}/{queue}/messages"
        status, _, _ = request(url, "POST", event, headers, CONTEXT)
        assert status == expected, (queue, status)
    kept = control("GET", f"/bus/{support['entity']}/bodies")["bodies"]
    assert "{}" in kept, kept

with check("enrol: the signatures for both namespaces are what the documentation says"):
    for part in (HANDED_OUT["bus"], HANDED_OUT["support"]):
        fields = dict(pair.split("=", 1) for pair in part["sas"].split(" ", 1)[1].split("&"))
        mac = hmac.new(os.environ["BUS_KEY"].encode(), f"{fields['sr']}\n{fields['se']}".encode(), hashlib.sha256)
        assert urllib.parse.unquote(fields["sig"]) == b64(mac.digest())
        assert int(fields["se"]) == part["expires_at_s"]

with check("enrol: rotated, the old token is void and a new one is handed out"):
    control("POST", f"/enrol/{BOX.box_id}/rotate")
    assert feed_status(HANDED_OUT["api"]["token"]) == 401
    renewed = BOX.ask(renew=True)[1]["credentials"]["api"]["token"]
    assert feed_status(renewed) == 200

with check("enrol: revoked, nothing opens any more"):
    control("POST", f"/enrol/{BOX.box_id}/revoke")
    assert BOX.ask()[1]["state"] == "revoked"
    assert feed_status(renewed) == 401

# The other way round: what the box itself signs, read by another Ed25519.
COMPTOIR = os.environ.get("COMPTOIR", "")
if not os.access(COMPTOIR, os.X_OK):
    print("skipped: enrol: no box to look at (COMPTOIR=PATH)")
    sys.exit()

with check("enrol: the real box's signature and claim hold for a stranger, and nothing else does"):
    with tempfile.TemporaryDirectory() as folder:
        site = os.path.join(folder, "site.toml")
        with open(site, "w", encoding="utf-8") as file:
            file.write(
                f"""[site]
claim_code = "Real-Box-7"
[wan]
api_url = "{READY['api_url']}"
bus_url = "{READY['bus_url']}"
media_url = "{READY['blob_url']}"
[wan.trust]
ca_files = ["{os.environ['CA_FILE']}"]
[lan]
bind = "127.77.0.9"
port_offset = 4100
[discovery]
enabled = false
[store]
data_dir = "{folder}/data"
orders_reserve_mib = 8
"""
            )
        serving = subprocess.Popen(
            [COMPTOIR, "--site-file", site, "serve"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            deadline, real = time.monotonic() + 60, None
            while real is None:
                assert time.monotonic() < deadline, "the box does not show itself"
                boxes = control("GET", "/enrol")["boxes"]
                real = next((box for box in boxes if box["box_id"] != BOX.box_id), None)
                time.sleep(0.1)
        finally:
            serving.terminate()
            serving.wait(30)
    public = base64.b64decode(real["public_key"])
    text, signature = real["signed_text"].encode(), base64.b64decode(real["signature"])
    Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    lines = real["signed_text"].split("\n")
    assert lines[:2] == ["comptoir-enrol-v1", real["box_id"]] and len(lines) == 5, lines
    assert abs(int(lines[3]) - time.time()) < 60, lines
    assert base64.b64decode(real["claim"]) == claim_proof("real box 7", public)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text + b" ")
    except InvalidSignature:
        pass
    else:
        raise AssertionError("another text passes")
