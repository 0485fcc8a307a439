"""A wire with a meter: forwards connections to the platform and counts the bytes of TCP, TLS included, both ways."""

import contextlib
import socket
import threading

PORT = 8543


class Meter:
    def __init__(self, address, target_port):
        self.target = (address, target_port)
        self.listener = socket.create_server((address, PORT))
        self.lock = threading.Lock()
        self.bytes = {"up": 0, "down": 0}
        self.connections = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def total(self):
        with self.lock:
            return sum(self.bytes.values())

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
                with self.lock:
                    self.connections += 1
                for way, source, sink in (("up", client, server), ("down", server, client)):
                    threading.Thread(target=self._pump, args=(way, source, sink), daemon=True).start()

    def _pump(self, way, source, sink):
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                with self.lock:
                    self.bytes[way] += len(chunk)
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
