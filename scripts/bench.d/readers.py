"""A device that reads at a constant rate, whatever the answers take: latency counts from when a read was due."""

import http.client
import json
import os
import time
from urllib.parse import quote

PERIOD_S = 0.005
DOCUMENTS = 50
DEADLINE_S = 60


def first_documents(box):
    """Paths of the documents that are there first."""
    headers = {"Authorization": f"Bearer {box.token()}"}
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        status, body = box.ask(8000, "GET", f"/v1/documents/products?limit={DOCUMENTS}", headers=headers)
        items = json.loads(body)["items"] if status == 200 else []
        if len(items) == DOCUMENTS:
            return [f"/v1/documents/products/{quote(item['id'], safe='')}" for item in items]
        time.sleep(0.01)
    raise RuntimeError("no documents came")


def read(box, paths, ended):
    """Reads until `ended`, on the client's core; seconds of each read."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {box.setup.client_core})
    try:
        return _read(box, paths, ended)
    finally:
        os.sched_setaffinity(0, cores)


def _read(box, paths, ended):
    headers = {"Authorization": f"Bearer {box.token()}"}
    connection = http.client.HTTPConnection(box.setup.box_addr, 8000, timeout=30)
    seconds, due, place = [], time.monotonic(), 0
    while place % 40 or not ended():
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        connection.request("GET", paths[place % len(paths)], headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"answered {answer.status}")
        seconds.append(time.monotonic() - due)
        due += PERIOD_S
        place += 1
    connection.close()
    return seconds


def p99_ms(seconds):
    return sorted(seconds)[len(seconds) * 99 // 100] * 1000
