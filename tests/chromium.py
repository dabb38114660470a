"""Debian's Chromium without a screen, through its debugging pipe: what is on a page, as a reader sees it. Needs no further Python package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

INSTALL = "install chromium: tests/lab/lab packages --test --install"
_SECONDS = 60  # for one answer; the first one waits for the start of the browser
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
    ),
    *("--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe"),
)
_LARGEST_PICTURE = 16_000  # pixels of its height

# What a reader could see of it; NAMES is replaced by a list of texts
_PROBE = """(() => {
  const root = document.scrollingElement, probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const seen = new Map();
  const rgba = text => {
    if (!seen.has(text)) {
      probe.clearRect(0, 0, 1, 1); probe.fillStyle = text; probe.fillRect(0, 0, 1, 1);
      seen.set(text, [...probe.getImageData(0, 0, 1, 1).data]);
    }
    return seen.get(text);
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = element => {
    for (let each = element; each; each = each.parentElement) {
      const color = rgba(getComputedStyle(each).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgba('Canvas');
  };
  const shown = (element) => {
    const box = element.getBoundingClientRect();
    return element.checkVisibility({visibilityProperty: true, opacityProperty: true, contentVisibilityAuto: true}) && box.width > 0 && box.height > 0 ? box : null;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let contrast = 99, worst = '', count = 0;
  const here = new Set();
  while (texts.nextNode()) {
    const said = texts.currentNode.data.trim(), parent = texts.currentNode.parentElement;
    if (!said || parent.tagName === 'STYLE' || !shown(parent)) continue;
    count += 1;
    const style = getComputedStyle(parent), [r, g, b, a] = rgba(parent instanceof SVGElement ? style.fill : style.color);
    const back = behind(parent), over = [r, g, b].map((c, n) => (c * a + back[n] * (255 - a)) / 255);
    const two = [light(over), light(back)].sort((x, y) => y - x), ratio = (two[0] + 0.05) / (two[1] + 0.05);
    if (ratio < contrast) { contrast = ratio; worst = said.slice(0, 80); }
  }
  for (const element of document.querySelectorAll('bdi, th, span, h1')) {
    const box = shown(element);
    if (box && box.left >= 0 && box.right <= root.clientWidth + 1) here.add(element.textContent.trim());
  }
  const bars = [...document.querySelectorAll('svg.picture rect, svg.picture circle')]
    .filter(each => each.checkVisibility()).map(each => each.getBoundingClientRect())
    .map(box => Math.min(box.width, box.height));
  return {
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth, height: root.scrollHeight,
    missing: NAMES.filter(name => !here.has(name)), texts: count, contrast, worst,
    bars: bars.length, thinnest: bars.length ? Math.min(...bars) : 0,
  };
})()"""
OPEN = "document.querySelectorAll('details').forEach(each => each.open = true)"


class Seen(NamedTuple):
    """
    What a reader could see.

    + overflow: pixels that the page is wider than the window
    + missing: of the names that were asked for, those that are not visible
    + contrast: the least of all visible texts, and worst: that text
    + thinnest: pixels of the least side of the bars and dots of pictures
    """

    overflow: int
    width: int
    height: int
    missing: list[str]
    texts: int
    contrast: float
    worst: str
    bars: int
    thinnest: float


class Page:
    """One tab. + errors: what the console says; requests: what it fetched beside itself"""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session
        self.errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        return self.browser.call(method, given, self.session)

    def load(self, path: Path, width: int, dark: bool = False, media: str = "") -> float:
        """Show a file in a window of that width; the seconds that it took."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self.media(dark, media)
        self.errors.clear()
        self.requests.clear()
        self.browser.events.clear()
        url, began = path.resolve().as_uri(), time.monotonic()
        self.call("Page.navigate", url=url)
        self.browser.wait("Page.loadEventFired", self.session)
        seconds = time.monotonic() - began
        self._note(url)
        return seconds

    def media(self, dark: bool = False, media: str = "") -> None:
        """+ media: screen or print; empty: the window's own"""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def _note(self, url: str) -> None:
        """The events until now."""
        self.evaluate("new Promise(done => setTimeout(done, 50))")
        for event in self.browser.events:
            params, method = event.get("params", {}), event["method"]
            if event.get("sessionId") != self.session:
                continue
            if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"]["text"])
            elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.errors.append(json.dumps(params)[:300])
            elif method == "Network.requestWillBeSent" and params["request"]["url"] != url:
                self.requests.append(params["request"]["url"])

    def evaluate(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:1000])
        return answer["result"].get("value")

    def seen(self, names: Sequence[str] = ()) -> Seen:
        """What a reader could see. + names: texts of which each is one element"""
        return Seen(**self.evaluate(_PROBE.replace("NAMES", json.dumps(list(names)))))

    def screenshot(self, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        given: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            height = min(size["height"], _LARGEST_PICTURE)
            given = {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1},
            }
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **given)["data"])


class Browser:
    """One process of Chromium with a profile of its own, which it talks to over two pipes."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        assert program, INSTALL
        self.events: list[dict[str, Any]] = []
        self.number, self.rest = 0, b""
        ours_in, theirs_out = map(_high, os.pipe())
        theirs_in, ours_out = map(_high, os.pipe())
        # the browser reads descriptor 3 and writes to 4
        command = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", program, *_OPTIONS]
        self.log = (folder / "chromium.log").open("wb")
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.ours_in, self.ours_out = ours_in, ours_out

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # its own session: the processes that it has begun end too
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for descriptor in (self.ours_in, self.ours_out):
            os.close(descriptor)
        self.log.close()

    def call(self, method: str, given: dict[str, Any] | None = None, session: str = "") -> dict[str, Any]:
        """Raises RuntimeError for an error, or where the browser has ended."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": given or {}}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.ours_out, data) :]
        while True:
            answer = self._message(method)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def wait(self, method: str, session: str) -> None:
        """Until an event has been."""
        while not any(e["method"] == method and e.get("sessionId") == session for e in self.events):
            self.events.append(self._message(method))

    def _message(self, waited_for: str) -> dict[str, Any]:
        until = time.monotonic() + _SECONDS
        while b"\0" not in self.rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.ours_in], [], [], left)[0]:
                raise RuntimeError(f"chromium: no answer to {waited_for} within {_SECONDS} s{self._last()}")
            read = os.read(self.ours_in, 2**20)
            if not read:
                raise RuntimeError(f"chromium ended before {waited_for}{self._last()}")
            self.rest += read
        text, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _last(self) -> str:
        lines = Path(self.log.name).read_text("utf-8", errors="replace").splitlines()
        return f": {lines[-1]}" if lines else ""

    @contextmanager
    def page(self) -> Iterator[Page]:
        """A tab of its own."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        yield Page(self, attached["sessionId"])
        self.call("Target.closeTarget", {"targetId": target})


def _high(descriptor: int) -> int:
    """The same pipe behind a number that no other of the child has."""
    fresh = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(descriptor)
    return fresh
