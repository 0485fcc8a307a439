"""The front page in a real browser: in French and in English, on a desk's width and on a phone's.

usage: portal.py PORTAL_URL SCREENSHOT_DIR

Speaks WebDriver (W3C) to chromedriver with the standard library alone. Prints `ok NAME` or `FAILED NAME: why`.
"""

import base64
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

WIDTHS = {"desk": 1280, "phone": 390}
LANGUAGES = {"fr": "Tout va bien", "en": "All is well"}
DRIVER_STARTS_WITHIN_S = 30
PAGE_SHOWS_WITHIN_S = 15


class Browser:
    """One headless window."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory()
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.base = f"http://127.0.0.1:{self.port()}"
        options = {
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
                f"--user-data-dir={self.profile.name}",
            ]
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{answer['sessionId']}"

    def port(self):
        deadline = time.monotonic() + DRIVER_STARTS_WITHIN_S
        while time.monotonic() < deadline:
            line = self.driver.stdout.readline()
            if "successfully on port" in line:
                return int(line.rsplit("on port", 1)[1].strip(" .\n"))
        raise RuntimeError("chromedriver does not say its port")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def resize(self, width):
        # Headless Chromium's window has a least width; device metrics have none.
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("POST", self.session + "/goog/cdp/execute",
                  {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def open(self, url):
        self.call("POST", self.session + "/url", {"url": url})

    def run(self, script):
        return self.call("POST", self.session + "/execute/sync", {"script": script, "args": []})

    def screenshot(self, path):
        full = self.call("POST", self.session + "/goog/cdp/execute",
                         {"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": True}})
        path.write_bytes(base64.b64decode(full["data"]))

    def complaints(self):
        log = self.call("POST", self.session + "/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE" and "favicon" not in entry["message"]]

    def close(self):
        try:
            self.call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait(10)
            self.profile.cleanup()


def check_page(browser, url, language, width_name, shots):
    """Opens one variant of the page and yields what is wrong with it."""
    browser.resize(WIDTHS[width_name])
    browser.open(f"{url}/?lang={language}")
    deadline = time.monotonic() + PAGE_SHOWS_WITHIN_S
    text = ""
    while LANGUAGES[language] not in text and time.monotonic() < deadline:
        text = browser.run("return document.body.innerText")
        time.sleep(0.2)
    browser.screenshot(shots / f"portal-{language}-{width_name}.png")
    if LANGUAGES[language] not in text:
        yield f"does not say «{LANGUAGES[language]}»: {text[:200]!r}"
    for name in ("Kitchen screen", "Kiosk", "Demo shop"):
        if name not in text:
            yield f"does not name {name}"
    if browser.run("return document.documentElement.lang") != language:
        yield "is marked as another language"
    wide = browser.run("return document.documentElement.scrollWidth - window.innerWidth")
    if wide > 0:
        yield f"is {wide} pixels wider than the screen"
    foreign = browser.run(
        "return performance.getEntriesByType('resource').map(e => e.name)"
        ".filter(n => !n.startsWith(location.origin))"
    )
    if foreign:
        yield f"asks others: {foreign}"
    complaints = browser.complaints()
    if complaints:
        yield f"the browser complains: {complaints[0]}"


def main():
    url, shots = sys.argv[1], pathlib.Path(sys.argv[2])
    shots.mkdir(parents=True, exist_ok=True)
    browser = Browser()
    try:
        for language in LANGUAGES:
            for width_name in WIDTHS:
                wrong = list(check_page(browser, url, language, width_name, shots))
                name = f"portal in {language} on a {width_name}"
                print(f"FAILED {name}: {'; '.join(wrong)}" if wrong else f"ok {name}", flush=True)
    finally:
        browser.close()


if __name__ == "__main__":
    main()
