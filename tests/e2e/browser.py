"""A page in headless Chromium, by the pipe of its DevTools: what it logs, asks for, shows, and when it is ready."""

import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-pipe")
_READY = """
new Promise(done => {
  const look = () => document.querySelectorAll("script.spec").length === Object.keys(window.views ?? {}).length
    ? done(performance.now()) : setTimeout(look, 5);
  look();
})
"""


class Tab:
    """One tab; `errors` and `requests` grow while it works."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._rest, self._number, self._session = to, back, b"", 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = str(self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return what Chromium answers to a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found
            self._take(answer)

    def open(self, page: Path, width: int = 1200, height: int = 900) -> float:
        """Open a page and return the milliseconds until all its charts are drawn."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.send("Page.navigate", url=page.resolve().as_uri())
        while self.ask("document.readyState") != "complete":
            pass
        return float(self.ask(_READY))

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, to: Path) -> None:
        """Write the whole page as PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        to.write_bytes(b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            got = os.read(self._back, 1 << 20)
            assert got, "Chromium has ended"
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _take(self, event: dict[str, Any]) -> None:
        values = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(values["exceptionDetails"]["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning"):
            self.errors.append(" ".join(str(each.get("value")) for each in values["args"]))
        elif event.get("method") == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.errors.append(values["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent" and not values["request"]["url"].startswith("data:"):
            self.requests.append(values["request"]["url"])


def wrong_figures(tab: Tab, result: dict[str, Any]) -> list[str]:
    """Return what the open page of a run shows otherwise than its JSON: in its text, or in the chart of the front."""
    text, points = tab.ask("document.body.innerText"), [*result["front"], *([result["chosen"]] if result.get("chosen") else [])]
    drawn = tab.ask("views.front.data('source_0').map(row => [row.key, row.device, +row.value, +row.lower, +row.upper])")
    told = {(key, device): numbers for key, device, *numbers in drawn}
    wrong = []
    for point in points:
        for device, at in point["devices"].items():
            expected = [at["latency_ms"], at["lower_ms"], at["upper_ms"]]
            if at.get("quantity", "latency") != "latency":
                expected = [1e3 / expected[0], 1e3 / expected[2], 1e3 / expected[1]]
            numbers = told.get((point["key"], device), [0, 0, 0])
            if any(abs(number - value) > 1e-3 * value for number, value in zip(numbers, expected, strict=True)):
                wrong.append(f"{point['key']} on {device}: drawn {numbers}, expected {expected}")
        accuracy, name = point.get("accuracy_pct"), point.get("network") or point["key"]
        if name not in text or (accuracy is not None and not any(f"{accuracy:.{digits}f}" in text for digits in (0, 1, 2))):
            wrong.append(f"{name}, {accuracy}: not in the text")
    return wrong


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Run Chromium with a profile in a folder of its own, and end it."""
    assert CHROMIUM is not None
    (there_in, to), (back, there_out) = os.pipe(), os.pipe()
    command = f'exec "$@" 3<&{there_in} 4>&{there_out}'  # where --remote-debugging-pipe reads and writes
    words = ["bash", "-c", command, "bash", CHROMIUM, *_FLAGS, f"--user-data-dir={folder}"]
    child = subprocess.Popen(words, pass_fds=(there_in, there_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(there_in)
    os.close(there_out)
    try:
        yield Tab(to, back)
    finally:
        child.terminate()
        child.wait(30)
        os.close(to)
        os.close(back)
