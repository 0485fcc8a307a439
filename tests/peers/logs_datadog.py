"""The vendor's own client (datadog-api-client) against the log input, and what only a plain request can ask of both dialects."""

import gzip
import json
import os

from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiException
from datadog_api_client.v2.api.logs_api import LogsApi
from datadog_api_client.v2.model.content_encoding import ContentEncoding
from datadog_api_client.v2.model.http_log import HTTPLog
from datadog_api_client.v2.model.http_log_item import HTTPLogItem
from report import READY, check, control, request, trusting

KEY = os.environ["LOGS_KEY"]
CONTEXT = trusting()


def client(key=KEY):
    configuration = Configuration(api_key={"apiKeyAuth": key})
    # The server with a name and protocol to fill in: any other goes to the vendor's own host.
    configuration.server_operation_index["submit_log"] = 1
    configuration.server_operation_variables["submit_log"] = {"name": READY["logs"], "protocol": "https"}
    configuration.ssl_ca_cert = os.environ["CA_FILE"]
    configuration.assert_hostname = False
    return LogsApi(ApiClient(configuration))


def entries():
    return [item["entry"] for item in control("GET", "/logs")["entries"]]


def submit(count, key=KEY, **more):
    items = [HTTPLogItem(message=f"m{n}", ddsource="peer", ddtags="site:peers", hostname="h", service="s") for n in range(count)]
    return client(key).submit_log(body=HTTPLog(items), **more)


def post(path, body, **headers):
    return request(READY["logs_url"] + path, "POST", body, {"Content-Type": "application/json", **headers}, CONTEXT)


with check("datadog: entries come in as they were sent, plain and gzip"):
    control("DELETE", "/logs")
    submit(2)
    submit(3, content_encoding=ContentEncoding.GZIP)
    assert [entry["message"] for entry in entries()] == ["m0", "m1", "m0", "m1", "m2"], entries()
    assert entries()[0] == {"message": "m0", "ddsource": "peer", "ddtags": "site:peers", "hostname": "h", "service": "s"}

with check("datadog: another key is 403"):
    try:
        submit(1, key="other")
        raise AssertionError("taken")
    except ApiException as error:
        assert error.status == 403 and "errors" in error.body, error

with check("datadog: more than 1000 entries, or 5 MB unpacked, are 413"):
    for entries_sent in [[{"message": "x"}] * 1001, [{"message": "x" * 5_000_000}]]:
        packed = gzip.compress(json.dumps(entries_sent).encode())
        answer = post("/api/v2/logs", packed, **{"DD-API-KEY": KEY, "Content-Encoding": "gzip"})
        assert answer[0] == 413, answer[0]

with check("datadog: what is no JSON, no gzip, no known encoding is refused"):
    for body, encoding, status in [(b"{", "identity", 400), (b"[1]", "identity", 400), (b"x", "gzip", 400), (b"[]", "br", 415)]:
        answer = post("/api/v2/logs", body, **{"DD-API-KEY": KEY, "Content-Encoding": encoding})
        assert answer[0] == status, (body, answer[0])

with check("datadog: a time of more than 18 hours ago is marked"):
    control("DELETE", "/logs")
    body = json.dumps([{"message": "old", "timestamp": "2020-01-01T00:00:00Z"}]).encode()
    assert post("/api/v2/logs", body, **{"DD-API-KEY": KEY})[0] == 202
    assert control("GET", "/logs")["entries"][0]["too_old"] is True

with check("logmatic: key in the path, one object or many, attributes from the query"):
    control("DELETE", "/logs")
    assert post(f"/v1/input/{KEY}?instance=7", b'{"message":"one"}')[0] == 200
    assert post(f"/v1/input/{KEY}", b'[{"message":"two"},{"message":"three"}]')[0] == 200
    assert entries() == [{"message": "one", "instance": "7"}, {"message": "two"}, {"message": "three"}], entries()

with check("logmatic: another key is 403, more than its clients send at once is 413"):
    assert post("/v1/input/other", b"{}")[0] == 403
    assert post(f"/v1/input/{KEY}", json.dumps([{"message": "x" * 210_000}]).encode())[0] == 413
