"""The least there is to an order from the bus: peek-lock, one 4 KiB write and fdatasync, to the device and back, complete.

Two round trips and one fsync, nothing else: no check, no memory of what came before. Ends when its standard input does.
"""

import base64
import hashlib
import hmac
import http.client
import os
import socket
import ssl
import sys
import threading
import time
import urllib.parse

WRITE_BYTES = 4096
FILE_WRITES = 1024
POLL_S = 30


def signature(url, rule, key):
    resource = urllib.parse.quote(url, safe="")
    expiry = str(int(time.time()) + 3600)
    mac = hmac.new(key.encode(), f"{resource}\n{expiry}".encode(), hashlib.sha256).digest()
    signed = urllib.parse.quote(base64.b64encode(mac).decode(), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signed}&se={expiry}&skn={urllib.parse.quote(rule, safe='')}"


def main():
    url, ca_file, rule, key, queue, floor_file, device = sys.argv[1:]
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    with open(floor_file, "wb") as file:
        file.write(os.urandom(WRITE_BYTES) * FILE_WRITES)
        os.fsync(file.fileno())
    floor = os.open(floor_file, os.O_WRONLY)
    host = urllib.parse.urlsplit(url)
    context = ssl.create_default_context(cafile=ca_file)
    bus = http.client.HTTPSConnection(host.hostname, host.port, timeout=POLL_S + 30, context=context)
    bus.connect()
    bus.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    address, port = device.rsplit(":", 1)
    device = socket.create_connection((address, int(port)))
    device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    headers = {"Authorization": signature(f"{url}/{queue}", rule, key), "Content-Length": "0"}
    block = os.urandom(WRITE_BYTES)
    writes = 0
    while True:
        bus.request("POST", f"/{queue}/messages/head?timeout={POLL_S}", headers=headers)
        answer = bus.getresponse()
        body = answer.read()
        if answer.status == 204:
            continue
        if answer.status != 201:
            raise RuntimeError(f"the bus answered {answer.status}: {body!r}")
        os.pwrite(floor, block, writes % FILE_WRITES * WRITE_BYTES)
        os.fdatasync(floor)
        writes += 1
        device.sendall(body + b"\n")
        if device.recv(1) != b"!":
            raise RuntimeError("the device has gone")
        settle = urllib.parse.urlsplit(answer.headers["Location"]).path
        bus.request("DELETE", settle, headers=headers)
        answer = bus.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"completing was answered {answer.status}")


main()
