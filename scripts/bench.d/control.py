"""The control API of the platform's stand-in."""

import json
import urllib.request

PORT = 8446


class Control:
    def __init__(self, address):
        self.url = f"http://{address}:{PORT}/control"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, method, path, value=None, timeout=3600):
        body = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self.url + path, data=body, method=method)
        with self.opener.open(request, timeout=timeout) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def asked(self, part):
        """How many of the last requests have `part` in their path, and how many requests there were in all."""
        requests = self.ask("GET", "/requests")
        return sum(part in request["path"] for request in requests["last"]), requests["total"]
