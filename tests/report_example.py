"""A report of hosts that are not there: for the tests, and as the picture of docs/how-to/report.md.

python -m tests.report_example                  # writes docs/how-to/report.png; needs chromium
python -m tests.report_example --html FILE      # the page alone
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operations.plan.report import Exposure, ExposureRow, HostReport, MemoryParts, ReleaseKept, Report, Run
from operations.plan.report_page import page
from operations.plan.status import DifferenceFound, GpuFound, HostStatus, ReleaseIds, VerdictFound

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "report.png"
WIDTH = 1160
NEW, OLD, OLDER, REFUSED = "c0a8e1d2f4b69357", "9e41c7d0a2b85f36", "51f7d2280ac4e6b9", "e7b3049a6c11d85f"
ENGINE = "tritonhost-engine-4f2a9c31.service"


def at(day: int, hour: int = 4, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def status(name: str, state: str, **changed: Any) -> HostStatus:
    host, _, service = name.partition("/")
    given: dict[str, Any] = {
        "model": "smollm2-135m",
        "running_model": "smollm2-135m",
        "release": ReleaseIds(running=NEW, current=NEW, previous=OLD, wanted=NEW),
        "since": "2026-11-21T04:00:00Z",
        "verdict": VerdictFound(outcome="proven", at="2026-11-21T04:00:10Z"),
        "differences": [],
        "gpus": [GpuFound(index=0, name="NVIDIA A10", memory_mib=23028, driver="580.159.03")],
    }
    return HostStatus.model_validate(
        {"name": name, "host": host, "service": service, "state": state, **given, **changed}
    )


VERSIONS = [
    ("image", "25.08"),
    ("Triton", "2.60.0"),
    ("TensorRT-LLM", "1.0.0"),
    ("TensorRT", "10.11.0"),
    ("CUDA", "12.9.1"),
    ("driver", "580.159.03"),
    ("docker-ce", "3:29.9.0-1.el9"),
    ("system", "ol 9.6"),
]
RELEASES = [
    ReleaseKept(id=NEW, places=["running", "current", "wanted"], model="smollm2-135m", outcome="proven", at=at(21), load_s=41.2, answer_s=0.38, gpu_mib=19866),
    ReleaseKept(id=REFUSED, model="smollm2-135m", outcome="failed", at=at(20, 16, 30), why="golden answer: found Berlin, expected Paris", load_s=43.9, answer_s=0.71),
    ReleaseKept(id=OLD, places=["previous"], model="smollm2-135m", outcome="proven", at=at(12, 9, 12), load_s=44.0, answer_s=0.41, gpu_mib=20102),
    ReleaseKept(id=OLDER, model="smollm2-135m", outcome="withdrawn", at=at(3, 22, 5), why="an operator's rollback", load_s=44.6, answer_s=0.4),
]  # fmt: skip
MEMORY = MemoryParts(
    gpu=23028, weights=258, activations=311, context=1024, cache=18210, measured=19866, measured_of=NEW
)
CHANGED = DifferenceFound(stage="release", what="current", found=OLD, wanted=NEW)
RUN = Run.model_validate(
    {
        "began": at(21, 3, 40),
        "ended": at(21, 4, 2),
        "hosts": [
            {
                "host": "gpu-1/llama",
                "release": NEW,
                "status": "deployed: serves since 2026-11-21T04:00:00",
                "failed": False,
                "differences": [CHANGED.model_dump()],
            },
            {
                "host": "gpu-2",
                "release": NEW,
                "status": "engine: exit code 137; take a larger shape or add swap",
                "failed": True,
                "differences": None,
            },
        ],
    }
)
EXPOSURE = Exposure(
    feed="bulletins of 2026-11-14, 7 days old",
    rows=[
        ExposureRow(host="gpu-1", component="driver", version="580.159.03", bulletin="NVIDIA 5747", others=2, cvss=7.8, fixed="580.178.04", status="exposed"),
        ExposureRow(host="gpu-1/llama", component="triton", version="25.08", bulletin="NVIDIA 5691", others=0, cvss=9.8, fixed="25.09", status="waived", until="2027-01-31"),
    ],
    unread={"gpu-5": "no route to host"},
)  # fmt: skip


def example() -> Report:
    """One host of each state, and two services of one."""
    starting = ReleaseIds(current=NEW, wanted=NEW)
    none: dict[str, Any] = {"running_model": "", "since": "", "verdict": None, "gpus": []}
    hosts = [
        HostReport(
            status=status("gpu-1/llama", "serving", certificate_ends="2027-01-31T12:00:00Z"),
            versions=VERSIONS,
            releases=RELEASES,
            memory=MEMORY,
        ),
        HostReport(status=status("gpu-1/gpt", "down", running_model="", since=""), versions=VERSIONS),
        HostReport(
            status=status(
                "gpu-2",
                "differs",
                release=ReleaseIds(running=OLD, current=OLD, previous=OLDER, wanted=NEW),
                since="2026-11-12T09:11:00Z",
                differences=[CHANGED, CHANGED.model_copy(update={"stage": "service", "what": "running release"})],
                at_work=[ENGINE],
            ),
            versions=VERSIONS,
            releases=RELEASES[2:],
            memory=MEMORY.model_copy(update={"measured": 20102, "measured_of": OLD}),
        ),
        HostReport(
            status=status("gpu-3", "starting", release=starting, since=""),
            versions=VERSIONS,
            memory=MEMORY.model_copy(update={"measured": None, "measured_of": ""}),
        ),
        HostReport(
            status=status("gpu-4", "not deployed", **{**none, "release": ReleaseIds(wanted=NEW), "differences": [CHANGED] * 34})
        ),
        HostReport(
            status=status("gpu-5", "unreachable", **{**none, "release": ReleaseIds(), "differences": None, "problem": "no route to host"})
        ),
    ]  # fmt: skip
    return Report(at=at(21, 4, 30), inventory="inventories/oci.py", hosts=hosts, run=RUN, exposure=EXPOSURE)


def digest(html: str) -> str:
    return hashlib.sha256(html.encode()).hexdigest()


def picture(html: str) -> bytes:
    """A PNG of the top of the page with the first host's details, which says what page it is of."""
    from PIL import Image, PngImagePlugin

    from tests.chromium import Browser

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.html")
        path.write_text(html, encoding="utf-8")
        with Browser(Path(folder)) as browser, browser.page() as tab:
            tab.load(path, WIDTH)
            tab.evaluate("document.querySelector('#h1').open = true")
            shot = Image.open(io.BytesIO(tab.screenshot(whole=True)))
    said = PngImagePlugin.PngInfo()
    said.add_text("page", digest(html))
    written = io.BytesIO()
    shot.convert("RGB").quantize(64).save(written, "png", optimize=True, pnginfo=said)
    return written.getvalue()


def main(arguments: list[str]) -> int:
    html = page(example())
    if arguments[:1] == ["--html"]:
        Path(arguments[1]).write_text(html, encoding="utf-8")
    else:
        PICTURE.write_bytes(picture(html))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
