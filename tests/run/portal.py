"""The front page in a real browser: in French and in English, on a desk's width and on a phone's.

usage: portal.py PORTAL_URL SCREENSHOT_DIR CONTROL_URL

CONTROL_URL is the platform's remote control: the page is also looked at while the platform is gone.

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
BROKEN = {"fr": "coupée", "en": "broken"}
FLOWS = 5
# The page renews itself every five seconds; two failures in a row make a line a broken one.
OUTAGE_SHOWS_WITHIN_S = 120
DRIVER_STARTS_WITHIN_S = 120
PAGE_SHOWS_WITHIN_S = 60


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
        with opener.open(request, timeout=120) as answer:
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
            self.driver.wait(60)
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
    wires = browser.run("return document.querySelectorAll('.wire').length")
    if wires != FLOWS:
        yield f"draws {wires} lines to the internet instead of {FLOWS}"
    yield from check_form(browser, language)


def check_form(browser, language):
    """What holds in every state: language, width, nothing from elsewhere, no complaint."""
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


def set_offline(control, offline):
    request = urllib.request.Request(
        control + "/control/offline", data=json.dumps({"offline": offline}).encode(), method="PUT"
    )
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()


def wait_for_text(browser, words, within_s):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if words in browser.run("return document.body.innerText"):
            return True
        time.sleep(0.5)
    return False


def check_outage(browser, url, language, width_name, shots):
    """The same while the platform is gone: the broken line comes first, says who can mend it, and stays as it was opened."""
    browser.resize(WIDTHS[width_name])
    browser.open(f"{url}/?lang={language}")
    if not wait_for_text(browser, BROKEN[language], OUTAGE_SHOWS_WITHIN_S):
        yield f"never says «{BROKEN[language]}»"
    first = browser.run("return document.querySelector('.out').compareDocumentPosition(document.querySelector('.cards'))"
                        " & Node.DOCUMENT_POSITION_FOLLOWING")
    if not first:
        yield "shows the broken line behind what works"
    browser.run("window.before = document.querySelector('.wire'); document.querySelector('#why-api').open = true")
    deadline = time.monotonic() + PAGE_SHOWS_WITHIN_S
    while time.monotonic() < deadline and browser.run("return window.before.isConnected"):
        time.sleep(0.5)
    if browser.run("return window.before.isConnected"):
        yield "does not renew itself"
    if not browser.run("return document.querySelector('#why-api').open"):
        yield "folds what was opened when it renews itself"
    if "tcp_refused" not in browser.run("return document.querySelector('#why-api').innerText"):
        yield "does not tell support the cause"
    browser.screenshot(shots / f"portal-outage-{language}-{width_name}.png")
    yield from check_form(browser, language)


def report(name, wrong):
    print(f"FAILED {name}: {'; '.join(wrong)}" if wrong else f"ok {name}", flush=True)


def main():
    url, shots, control = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    shots.mkdir(parents=True, exist_ok=True)
    browser = Browser()
    try:
        for language in LANGUAGES:
            for width_name in WIDTHS:
                wrong = list(check_page(browser, url, language, width_name, shots))
                report(f"portal in {language} on a {width_name}", wrong)
        set_offline(control, True)
        for language, width_name in (("fr", "desk"), ("en", "phone")):
            wrong = list(check_outage(browser, url, language, width_name, shots))
            report(f"portal in {language} on a {width_name} in an outage", wrong)
        set_offline(control, False)
        browser.open(f"{url}/?lang=en")
        is_well = wait_for_text(browser, LANGUAGES["en"], OUTAGE_SHOWS_WITHIN_S)
        report("portal after an outage", [] if is_well else ["never says that all is well again"])
    finally:
        browser.close()


if __name__ == "__main__":
    main()
