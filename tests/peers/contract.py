"""Snapshot, feed and events, judged by openapi.yaml through a foreign JSON Schema implementation."""

import gzip
import hashlib
import json
import os
import threading
import time
import urllib.parse
import zlib

import jsonschema
import openapi_spec_validator
import yaml
from report import READY, check, control, request, trusting

SPEC = yaml.safe_load(open(os.environ["SPEC"], encoding="utf-8"))
SITE_URL = f"{READY['api_url']}/v1/sites/{os.environ['SITE']}"
BEARER = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
CONTEXT = trusting()


def must_be(schema, value):
    """Fails unless `value` is what `#/components/schemas/{schema}` says."""
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": SPEC["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    ).validate(value)


def ask(path, **more):
    headers = {**BEARER, **more.pop("headers", {})}
    return request(SITE_URL + path, headers=headers, context=CONTEXT, **more)


def problem(answer, status, kind=None):
    got, headers, body = answer
    assert got == status, f"{got} instead of {status}"
    assert headers["Content-Type"] == "application/problem+json", headers["Content-Type"]
    must_be("Problem", json.loads(body))
    assert json.loads(body)["status"] == status
    assert kind is None or json.loads(body)["type"] == f"urn:comptoir:{kind}"


def part_path(plan, part):
    return f"/snapshot/{plan['snapshot']}/{part['part']}"


def documents_of(text):
    """Documents by key of a body of lines; checks every line and the end."""
    lines = [json.loads(line) for line in text.decode().splitlines()]
    must_be("SnapshotEnd", lines[-1])
    assert lines[-1]["count"] == len(lines) - 1
    for line in lines[:-1]:
        must_be("SnapshotDocument", line)
    documents = {(line["collection"], line["id"]): line for line in lines[:-1]}
    assert len(documents) == len(lines) - 1, "a document came twice"
    return documents


def snapshot(**headers):
    """Documents by key, the cursor, and the last answer's head, of all parts."""
    status, head, body = ask("/snapshot")
    assert status == 200 and head["Content-Type"] == "application/json"
    plan = json.loads(body)
    must_be("SnapshotPlan", plan)
    documents = {}
    for part in plan["parts"]:
        status, head, body = ask(part_path(plan, part), headers=headers)
        assert status == 200 and head["Content-Type"] == "application/x-ndjson"
        if head["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        found = documents_of(body)
        assert len(found) == part["documents"] and not found.keys() & documents.keys()
        documents.update(found)
    return documents, plan["cursor"], head


def feed(cursor, **query):
    parameters = "&".join(f"{name}={value}" for name, value in {"cursor": cursor, **query}.items())
    status, head, body = ask("/feed?" + parameters)
    assert status == 200, f"{status} {body!r}"
    assert head["Content-Type"] == "application/json"
    page = json.loads(body)
    must_be("FeedPage", page)
    return page


with check("contract: openapi.yaml is a valid OpenAPI document"):
    openapi_spec_validator.validate(SPEC)

with check("contract: snapshot, plain and gzip, hold the same documents"):
    plain, _, head = snapshot(**{"Accept-Encoding": "identity"})
    assert head["Content-Encoding"] is None
    packed, _, head = snapshot(**{"Accept-Encoding": "gzip"})
    assert head["Content-Encoding"] == "gzip"
    assert plain == packed and len(plain) > 0

with check("contract: a part taken in pieces is the part, packed and plain, over a restart of asking"):
    control("POST", "/documents/pieces/generate", {"count": 4000, "bytes": 400})
    plan = json.loads(ask("/snapshot")[2])
    path = part_path(plan, next(part for part in plan["parts"] if part["class"] == "descriptions"))
    for coding in ["identity", "gzip"]:
        accept = {"Accept-Encoding": coding}
        _, head, whole = ask(path, headers=accept)
        tag, pieces = head["ETag"], b""
        while len(pieces) < len(whole):
            step = {"Range": f"bytes={len(pieces)}-{len(pieces) + 99_999}", "If-Range": tag, **accept}
            status, head, piece = ask(path, headers=step)
            assert status == 206 and head["ETag"] == tag
            assert head["Content-Range"] == f"bytes {len(pieces)}-{len(pieces) + len(piece) - 1}/{len(whole)}"
            pieces += piece
        assert pieces == whole
        assert ask(path, headers={"Range": "bytes=9-", "If-Range": '"other"', **accept})[0] == 200
        problem(ask(path, headers={"Range": f"bytes={len(whole)}-", **accept}), 416)
        if coding == "identity":
            plain = whole

with check("contract: each member of a packed part is whole lines, so reading may begin at any of them"):
    rest, text, members = whole, b"", 0
    while rest:
        decoder = zlib.decompressobj(wbits=31)
        lines = decoder.decompress(rest)
        assert decoder.eof and lines.endswith(b"\n")
        rest, text, members = decoder.unused_data, text + lines, members + 1
    assert text == plain and members > 3, members

with check("contract: a snapshot that is not kept is gone"):
    problem(ask("/snapshot/made-up/prices"), 410, "snapshot-gone")
    control("DELETE", "/snapshots")
    problem(ask(path), 410, "snapshot-gone")

with check("contract: checksums are the sums of the documents, and a bucket is its documents"):
    documents, cursor, _ = snapshot()
    sums = {}
    for (collection, name), document in documents.items():
        key = (collection, hashlib.sha256(name.encode()).digest()[0])
        number = hashlib.sha256(f"{name}\0{document['version']}".encode()).digest()[:8]
        count, total = sums.get(key, (0, 0))
        sums[key] = (count + 1, (total + int.from_bytes(number)) % 2**64)
    told = json.loads(ask("/checksums")[2])
    assert told["cursor"] == cursor
    for line in told["collections"]:
        mine = [sum for (collection, _), sum in sums.items() if collection == line["collection"]]
        assert line["count"] == sum(count for count, _ in mine)
        assert int(line["sum"], 16) == sum(total for _, total in mine) % 2**64
        buckets = json.loads(ask(f"/checksums/{line['collection']}")[2])["buckets"]
        told_buckets = {(line["collection"], one["bucket"]): (one["count"], int(one["sum"], 16)) for one in buckets}
        assert told_buckets == {key: sum for key, sum in sums.items() if key[0] == line["collection"]}
    collection, bucket = next(iter(sums))
    found = documents_of(ask(f"/buckets/{collection}/{bucket}")[2])
    assert found and all(documents[key] == document for key, document in found.items())
    assert len(found) == sums[collection, bucket][0]
    problem(ask(f"/buckets/{collection}/256"), 400)

with check("contract: a class comes alone, and nothing comes beyond a place"):
    control("PUT", "/documents/products/peer-9", {"name": "x"})
    control("PUT", "/documents/prices/peer-9", {"amount": "1.00"})
    control("PUT", "/documents/products/peer-9", {"name": "y"})
    everything = feed(cursor)
    urgent = feed(cursor, **{"class": "prices"})
    assert [item["collection"] for item in urgent["items"]] == ["prices"]
    assert urgent["next"] == everything["next"] and urgent["caught_up"]
    middle = feed(cursor, limit=2)["next"]
    assert feed(cursor, until=middle)["items"] == everything["items"][:2]
    assert feed(middle, until=middle, wait_s=30)["items"] == []
    assert ask(f"/feed?cursor={cursor}&class=made-up")[0] == 400

with check("contract: Date is there for a box without a clock"):
    _, _, head = snapshot()
    assert head["Date"].endswith(" GMT")

with check("contract: changes after a snapshot come in order, deletions as such"):
    _, cursor, _ = snapshot()
    control("PUT", "/documents/products/peer-1", {"name": "one"})
    control("PUT", "/documents/products/peer-1", {"name": "two"})
    control("DELETE", "/documents/products/peer-1")
    page = feed(cursor)
    assert [item["deleted"] for item in page["items"]] == [False, False, True]
    versions = [item["version"] for item in page["items"]]
    assert versions == sorted(set(versions)) and page["caught_up"]
    assert ("products", "peer-1") not in snapshot()[0]

with check("contract: pages go on where the last one ended"):
    first = feed(cursor, limit=2)
    assert len(first["items"]) == 2 and not first["caught_up"]
    rest = feed(first["next"], limit=2)
    assert first["items"] + rest["items"] == page["items"] and rest["caught_up"]
    nothing = feed(rest["next"])
    assert nothing["items"] == [] and nothing["next"] == rest["next"] and nothing["caught_up"]

with check("contract: a document comes back with a higher version"):
    control("PUT", "/documents/products/peer-1", {"name": "three"})
    assert snapshot()[0]["products", "peer-1"]["version"] == versions[-1] + 1

with check("contract: the long poll wakes at a change, and ends without one"):
    _, cursor, _ = snapshot()
    changer = threading.Timer(0.5, control, ["PUT", "/documents/products/peer-2", {"name": "woken"}])
    started = time.monotonic()
    changer.start()
    page = feed(cursor, wait_s=30)
    took = time.monotonic() - started
    changer.join()
    assert page["items"][0]["id"] == "peer-2" and 0.4 < took < 25, took
    started = time.monotonic()
    page = feed(page["next"], wait_s=1)
    assert page["items"] == [] and time.monotonic() - started >= 1

with check("contract: behind the horizon, and for a foreign cursor, the answer is refetch"):
    control("POST", "/feed/forget")
    problem(ask(f"/feed?cursor={cursor}"), 410, "refetch")
    problem(ask("/feed?cursor=made-up"), 410, "refetch")
    documents, cursor, _ = snapshot()
    assert ("products", "peer-2") in documents and feed(cursor)["caught_up"]

with check("contract: parameters are held to their ranges"):
    for query in ["", "?cursor=", f"?cursor={cursor}&limit=0", f"?cursor={cursor}&limit=5001", f"?cursor={cursor}&wait_s=x"]:
        status = ask("/feed" + query)[0]
        assert status == 400 or (query == "?cursor=" and status == 410), f"{query}: {status}"

with check("contract: an event is stored once per key"):
    event = {"kind": "order.advanced", "occurred_at": "2026-01-02T03:04:05Z", "body": {"order_id": "o1"}}
    must_be("Event", event)

    def post(value, key="peer-key", raw=None):
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        return ask("/events", method="POST", body=raw or json.dumps(value).encode(), headers=headers)

    first, second = post(event), post(event)
    assert (first[0], second[0]) == (201, 200)
    must_be("EventStored", json.loads(first[2]))
    assert first[2] == second[2]
    problem(post({**event, "body": {}}), 409, "key-reused")
    stored = [kept for kept in control("GET", "/events")["events"] if kept["key"] == "peer-key"]
    assert len(stored) == 1 and stored[0]["event"] == event and stored[0]["repeats"] == 1

with check("contract: what is no event is refused"):
    problem(post({"kind": "x"}, "k2"), 422)
    problem(post({**event, "occurred_at": "yesterday"}, "k3"), 422)
    problem(post(None, "k4", raw=b"{" + b" " * 300_000), 413)
    problem(post(event, ""), 400)

with check("contract: a batch has a result for each event, and a repeat alone is the same event"):
    def batch(events):
        headers = {"Content-Type": "application/json", "Idempotency-Key": "batch"}
        return ask("/events/batch", method="POST", body=json.dumps({"events": events}).encode(), headers=headers)

    several = [{"key": f"batch-{n}", **event, "body": {"n": n}} for n in range(3)]
    must_be("EventBatch", {"events": several})
    broken = {**several[1], "key": "batch-broken", "occurred_at": "yesterday"}
    answer = batch([several[0], broken, *several[1:]])
    results = json.loads(answer[2])
    must_be("EventResults", results)
    assert [result["status"] for result in results["results"]] == [201, 422, 201, 201], results
    again = json.loads(batch(several)[2])["results"]
    assert [result["status"] for result in again] == [200, 200, 200]
    assert post({**event, "body": {"n": 1}}, "batch-1")[0] == 200
    problem(batch([]), 422)
    problem(batch(several * 70), 413)

with check("contract: a batch ends at the first event the platform stumbles over"):
    control("POST", "/events/refusals", {"kind": "peer.stumble", "status": 500})
    several = [{"key": f"stumble-{n}", **event, "kind": "peer.stumble" if n == 1 else "peer.fine"} for n in range(3)]
    results = json.loads(batch(several)[2])["results"]
    assert [result["status"] for result in results] == [201, 500], results
    results = json.loads(batch(several)[2])["results"]
    assert [result["status"] for result in results] == [200, 201, 201], results

with check("contract: orders are in their feed under the message ids of the bus"):
    def orders(**query):
        status, _, body = ask("/orders/feed?" + urllib.parse.urlencode(query))
        assert status == 200, body
        page = json.loads(body)
        must_be("OrdersPage", page)
        return page

    start = orders()["next"]
    for n in range(3):
        control("POST", f"/orders?via=both&message_id=om-{n}", {"order_id": f"of-{n}"})
    page = orders(cursor=start, limit=2)
    assert [item["message_id"] for item in page["items"]] == ["om-0", "om-1"] and not page["caught_up"]
    must_be("Order", page["items"][0]["body"])
    rest = orders(cursor=page["items"][0]["cursor"], wait_s=5)
    assert [item["message_id"] for item in rest["items"]] == ["om-1", "om-2"] and rest["caught_up"]
    control("POST", "/orders/forget")
    problem(ask(f"/orders/feed?cursor={start}"), 410, "refetch")
    assert len(orders()["items"]) >= 3

with check("contract: no token, a wrong one, another site"):
    for headers in [{"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}]:
        answer = ask("/snapshot", headers=headers)
        problem(answer, 401)
        assert answer[1]["WWW-Authenticate"] == "Bearer"
    other = SITE_URL.rsplit("/", 1)[0] + "/other/feed?cursor=x"
    problem(request(other, headers=BEARER, context=CONTEXT), 403)

with check("contract: a cut snapshot is seen to be cut"):
    control("POST", "/faults", {"fault": "truncate_after_bytes:40", "flow": "api", "path": "/descriptions"})
    try:
        plan = json.loads(ask("/snapshot")[2])
        body = ask(part_path(plan, plan["parts"][1]))[2]
    except (OSError, EOFError, ValueError) as error:
        body = str(error).encode()
    except Exception as error:  # http.client names it IncompleteRead
        assert type(error).__name__ == "IncompleteRead", error
        body = b""
    assert b'"end":true' not in body
