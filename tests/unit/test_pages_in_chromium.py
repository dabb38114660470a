"""The HTML pages of the tool as a reader sees them, in Debian's Chromium: wide and narrow, light and dark, and on paper."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from operations.plan.report import HostReport
from operations.plan.report_page import page as report_page
from operations.plan.serving.replay_page import page as replay_page
from operations.plan.serving.replayed import Reply, pairs_of, report
from tests.chromium import OPEN, Browser, Page, Seen
from tests.report_example import example, status
from tests.unit.test_replayed import NAMES, ONE, PROMPTS, TWO
from tests.unit.test_report_page import HOSTILE, hostile, with_hosts

pytestmark = pytest.mark.slow
WIDTHS = (400, 710, 980, 1160, 1280)
LEAST_CONTRAST = 4.5  # of text, WCAG 2.2, level AA
ARABIC = "\u0645\u0636\u064a\u0641-\u0662"
LONG = "gpu-" + "x" * 100


class Shown(NamedTuple):
    """A page. + names: what has to be visible; bars: how many bars and dots its pictures have"""

    html: str
    names: list[str]
    bars: int


def of_report(*hosts: HostReport) -> Shown:
    made = with_hosts(*hosts) if hosts else example()
    # as many as the code says: what is drawn is what is checked
    html = report_page(made)
    pictures = [part.partition("</svg>")[0] for part in html.split('<svg class="picture"')[1:]]
    bars = sum(part.count("<rect") + part.count("<circle") for part in pictures)
    return Shown(html, [host.status.name for host in made.hosts], bars)


def of_replay() -> Shown:
    one = [*ONE[:1], Reply(2, HOSTILE * 5, 0.1, 0.2, 1), Reply(3, "\u202e" + "word" * 200, 0.1, 0.2, 1)]
    pairs = pairs_of(PROMPTS, one, TWO)
    html = replay_page(report(NAMES, pairs), pairs)
    return Shown(html, [f"{NAMES[0]} and {NAMES[1]}", *NAMES], html.count('<rect class="bar"'))


HOSTILE_HOSTS = (
    hostile("</td></table><b>" * 3),
    HostReport(status=status(ARABIC, "differs", problem=ARABIC * 20)),
    HostReport(status=status(LONG, "down", model=LONG, problem=LONG * 3, at_work=[LONG])),
    *(HostReport(status=status(f"gpu-{number}", "serving")) for number in range(5)),
)
PAGES: dict[str, Callable[[], Shown]] = {
    "report": of_report,
    "report of hostile hosts": lambda: of_report(*HOSTILE_HOSTS),
    "replay": of_replay,
}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Browser(tmp_path_factory.mktemp("chromium")) as browser, browser.page() as page:
        yield page


def written(folder: Path, html: str) -> Path:
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    return path


def faults(tab: Page, wanted: Shown, seen: Seen) -> list[str]:
    """What a reader would miss; empty where nothing."""
    found = []
    if seen.overflow > 0:
        found.append(f"overflow: {seen.overflow} pixels")
    if seen.missing:
        found.append(f"not visible: {seen.missing}")
    if seen.contrast < LEAST_CONTRAST:
        found.append(f"contrast: {seen.contrast:.2f} of {seen.worst}")
    if seen.bars != wanted.bars or seen.thinnest < 0.25:
        found.append(f"bars: {seen.bars} of {wanted.bars}, the thinnest {seen.thinnest:.2f} pixels")
    if tab.errors:
        found.append(f"console: {tab.errors}")
    if tab.requests:
        found.append(f"requests: {tab.requests}")
    return found


def look(tab: Page, wanted: Shown, folder: Path, width: int, dark: bool) -> list[str]:
    """The faults of a page in a window, with its details closed and open, and of its picture."""
    tab.load(written(folder, wanted.html), width, dark)
    closed = tab.seen(wanted.names)
    assert closed.width == width and closed.texts > 20
    tab.evaluate(OPEN)
    found = faults(tab, wanted, tab.seen(wanted.names))
    found += [f"closed: {names}" for names in [closed.missing] if names]
    found += [f"closed: overflow: {closed.overflow} pixels"] if closed.overflow > 0 else []
    return [*found, *faults_of_picture(tab.screenshot(), width, dark)]


def faults_of_picture(data: bytes, width: int, dark: bool) -> list[str]:
    with Image.open(io.BytesIO(data)) as shot:
        grey = shot.convert("L")
        counts = grey.histogram()
        most = max(range(256), key=lambda level: counts[level])
        found = [] if shot.size == (width, 900) else [f"picture: {shot.size}"]
        # a page is mostly its background, and a part of it is letters
        if (most < 60) is not dark or (most > 200) is dark:
            found.append(f"picture: the background is {most} of 255")
        drawn = sum(count for level, count in enumerate(counts) if abs(level - most) > 60)
        if not 0.01 < drawn / (width * 900) < 0.5:
            found.append(f"picture: {drawn} pixels that are not the background")
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_page_can_be_read(tab: Page, tmp_path: Path, name: str, width: int, dark: bool) -> None:
    assert look(tab, PAGES[name](), tmp_path, width, dark) == []


@pytest.mark.parametrize("name", PAGES)
def test_page_can_be_printed(tab: Page, tmp_path: Path, name: str) -> None:
    wanted = PAGES[name]()
    # from a window that is dark, and with what a reader has not opened
    tab.load(written(tmp_path, wanted.html), 720, dark=True, media="print")
    seen = tab.seen(wanted.names)
    assert faults(tab, wanted, seen) == []
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.call("Page.printToPDF")["data"]


def test_page_of_200_hosts_opens_fast(tab: Page, tmp_path: Path) -> None:
    host = example().hosts[0]
    hosts = [host.model_copy(update={"status": status(f"gpu-{n:03}", "serving")}) for n in range(200)]
    wanted = of_report(*hosts)
    assert tab.load(written(tmp_path, wanted.html), 1280) < 8
    seen = tab.seen(wanted.names)
    assert (seen.missing, seen.overflow) == ([], 0)


# --- each check fails where it should


def changed(old: str, new: str) -> Callable[[str], str]:
    def change(html: str) -> str:
        assert old in html
        return html.replace(old, new)

    return change


POLICY_OUT = changed("default-src 'none'; style-src 'unsafe-inline'", "default-src * 'unsafe-inline'")
BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "a wide table": (changed("<h2>Hosts", '<div style="width: 1000px">a</div><h2>Hosts'), "overflow"),
    "a hidden name": (changed("<bdi", '<bdi style="display: none"'), "not visible"),
    "a name off the page": (
        changed("<bdi", '<bdi style="position: absolute; left: -3000px"'),
        "not visible",
    ),
    "grey on grey": (changed("--quiet: #57606a", "--quiet: #aaaaaa"), "contrast"),
    "no contrast in a picture": (changed("text { fill: var(--quiet)", "text { fill: var(--faint)"), "contrast"),
    "bars without a height": (changed('height="18"/>', 'height="0"/>'), "bars"),
    "pictures that are not there": (changed(".picture { width", ".picture { display: none; width"), "bars"),
    "an image from elsewhere": (changed("</h1>", '</h1><img src="http://127.0.0.1:9/x.png">'), "console"),
    "a request": (
        lambda html: POLICY_OUT(changed("</h1>", '</h1><img src="http://127.0.0.1:9/x.png">')(html)),
        "requests",
    ),
    "a script that fails": (
        lambda html: POLICY_OUT(changed("</h1>", "</h1><script>nothing()</script>")(html)),
        "console",
    ),
    "a dark page in a light window": (changed("--page: #ffffff", "--page: #101010"), "picture"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_fault_of_a_page_is_seen(tab: Page, tmp_path: Path, name: str) -> None:
    change, fault = BROKEN[name]
    wanted = of_report()
    found = look(tab, wanted._replace(html=change(wanted.html)), tmp_path, 400, dark=False)
    assert any(fault in each for each in found), found


def test_blank_page_is_seen(tab: Page, tmp_path: Path) -> None:
    tab.load(written(tmp_path, "<!doctype html><title>a</title><body></body>"), 400)
    assert faults_of_picture(tab.screenshot(), 400, dark=False) != []


def test_what_stays_closed_on_paper_is_seen(tab: Page, tmp_path: Path) -> None:
    wanted = of_report()
    html = changed("details::details-content", "details::none")(wanted.html)
    tab.load(written(tmp_path, html), 720, media="print")
    assert any(each.startswith("bars") for each in faults(tab, wanted, tab.seen(wanted.names)))
