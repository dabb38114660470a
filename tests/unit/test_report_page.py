"""The page of a report: reviewed, whole, bounded, without anything to fetch or to run, and true to whatever a host says."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from operations.plan.html_page import POLICY
from operations.plan.report import ExposureRow, HostReport, MemoryParts, ReleaseKept, Report, Run
from operations.plan.report_page import LARGEST, page
from operations.plan.report_pictures import memory, states, timeline
from operations.plan.status import STATES, DifferenceFound, GpuFound, ReleaseIds
from tests.report_example import CHANGED, EXPOSURE, MEMORY, PICTURE, RELEASES, digest, example, status
from tests.unit.test_replay_page import HOSTILE, Page

GOLDEN = Path(__file__).parent / "golden_pages" / "report.html"
# turns what is behind it round, and ends nothing; a name of one line
RIGHT_TO_LEFT = "\u202egpu\u202c-\u0645\u0636\u064a\u0641"


def parsed(report: Report) -> tuple[str, Page]:
    text = page(report)
    found = Page(text)
    assert (found.open, found.wrong) == ([], [])
    return text, found


def with_hosts(*hosts: HostReport, **changed: Any) -> Report:
    return example().model_copy(update={"hosts": list(hosts), "run": None, "exposure": None, **changed})


def hostile(name: str = HOSTILE) -> HostReport:
    """A host, or a service of it, each of whose texts is markup."""
    row = DifferenceFound(stage=name, what=name, found=name, wanted=name)
    found = status(
        name,
        "differs",
        model=name,
        running_model=f"{name} 2",
        release=ReleaseIds(running=name, current=name, previous=name, wanted=name),
        differences=[row],
        gpus=[GpuFound(index=0, name=name, memory_mib=1, driver=name)],
        at_work=[name],
        problem=name,
    )
    kept = ReleaseKept(id=name, model=name, outcome=name, at=datetime(2026, 11, 1, tzinfo=UTC), why=name)
    memory = MEMORY.model_copy(update={"measured_of": name})
    return HostReport(status=found, versions=[(name, name)], releases=[kept, kept], memory=memory)


def test_page_is_the_golden_one() -> None:
    assert page(example()) == GOLDEN.read_text("utf-8"), "run `make golden`, and read the difference"


def test_picture_of_the_docs_is_of_this_page() -> None:
    with Image.open(PICTURE) as shot:
        assert shot.info["page"] == digest(page(example())), "run `python -m tests.report_example`"
    assert PICTURE.stat().st_size < 200_000


def test_page_shows_markup_as_text() -> None:
    run = Run.model_validate(
        {
            "began": example().at,
            "ended": example().at,
            "hosts": [{"host": HOSTILE, "release": HOSTILE, "status": HOSTILE, "failed": True, "differences": [dict.fromkeys(("stage", "what", "found", "wanted"), HOSTILE)]}],
        }
    )  # fmt: skip
    row = ExposureRow(host=HOSTILE, component=HOSTILE, version=HOSTILE, bulletin=HOSTILE, others=1, cvss=1, fixed=HOSTILE, status="waived", until=HOSTILE)  # fmt: skip
    exposure = EXPOSURE.model_copy(update={"rows": [row], "unread": {HOSTILE: HOSTILE}, "feed": HOSTILE})
    host = hostile()
    # the row is this host's, whatever a / in its name means
    host = host.model_copy(update={"status": host.status.model_copy(update={"host": HOSTILE})})
    _, found = parsed(with_hosts(host, inventory=HOSTILE, run=run, exposure=exposure))
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "img", "iframe", "form", "link"})
    assert not [name for _, given in found.tags for name in given if name.startswith("on")]
    assert len([text for _, text in found.text if HOSTILE in text]) > 40


def test_name_that_turns_the_text_round_is_shown() -> None:
    text, found = parsed(with_hosts(hostile(RIGHT_TO_LEFT), inventory=RIGHT_TO_LEFT))
    assert "\u202e" not in text and "\u202c" not in text
    assert "U+202E" in found.of("span") and "U+202EgpuU+202C" in found.of("title")[0]
    # a name in letters of both directions does not move what stands beside it
    assert text.count("<bdi") >= 2 and 'dir="auto"' in text


def test_page_fetches_and_runs_nothing() -> None:
    text, found = parsed(example())
    assert [given["content"] for tag, given in found.tags if "http-equiv" in given] == [POLICY]
    assert not re.search(r"https?:|url\(|@import|<script|<link|\bsrc=|javascript:", text)
    assert {given["href"] for tag, given in found.tags if tag == "a"} == {f"#h{n}" for n in range(1, 7)}
    assert {given["id"] for tag, given in found.tags if "id" in given} == {f"h{n}" for n in range(1, 7)}


def test_page_has_inventory_and_time_in_its_title() -> None:
    _, found = parsed(example())
    assert found.of("title") == found.of("h1") == ["inventories/oci.py, 2026-11-21 04:30 UTC"]


def test_every_host_and_state_is_on_the_page() -> None:
    _, found = parsed(example())
    for host in example().hosts:
        assert found.of("bdi").count(host.status.name) >= 2, host.status.name
    words = " ".join(text for _, text in found.text)
    assert all(f"1 {state}" in words for state in STATES)
    for said in (
        *("no route to host", "golden answer: found Berlin, expected Paris", "ends 2027-01-31 12:00 UTC, in 71 days"),
        *("TensorRT-LLM 1.0.0", "41.2 s", "0.38 s", "19866 MiB", "forecast 19.3 GiB", "measured 19.4 GiB"),
        *("2026-11-21 03:40 to 2026-11-21 04:02 UTC, 22:00 minutes: 2 hosts, 1 failed.", "exit code 137"),
        *("NVIDIA 5747 and 2 more", "until 2027-01-31", "bulletins of 2026-11-14, 7 days old"),
    ):  # fmt: skip
        assert said in words, said


def test_certificate_that_is_over_is_named_so() -> None:
    _, found = parsed(
        with_hosts(HostReport(status=status("a", "serving", certificate_ends="2026-11-01T00:00:00Z")))
    )
    assert "ends 2026-11-01 00:00 UTC, which is over" in found.of("span")  # fmt: skip


def test_details_are_open_on_a_small_page_only() -> None:
    few = [HostReport(status=status(f"gpu-{n}", "serving")) for n in range(4)]
    assert page(with_hosts(*few)).count("<details") == page(with_hosts(*few)).count(" open>") == 4
    assert " open>" not in page(with_hosts(*few, *few))


def test_page_without_hosts_is_a_page() -> None:
    parsed(with_hosts())


@pytest.mark.slow
@pytest.mark.parametrize("text", ["plain", HOSTILE, "&" * 400])
def test_page_of_200_hosts_stays_small(text: str) -> None:
    rows = [DifferenceFound(stage=text, what=text, found=text, wanted=text)] * 400
    releases = [
        ReleaseKept(id=text, outcome=text, at=example().at - timedelta(days=n), why=text) for n in range(40)
    ]
    host = hostile(text)
    hosts = []
    for number in range(200):
        found = host.status.model_copy(update={"name": f"gpu-{number}", "differences": rows})
        hosts.append(host.model_copy(update={"status": found, "releases": releases}))
    made = page(with_hosts(*hosts))
    assert len(made.encode()) <= LARGEST == 2_000_000
    assert all(f">gpu-{number}</bdi>" in made for number in range(200))
    assert re.search(r"… and \d+ more differences", made)


def test_page_of_200_usual_hosts_has_all_rows() -> None:
    host = example().hosts[0]
    hosts = [
        host.model_copy(update={"status": status(f"gpu-{n}", "differs", differences=[CHANGED] * 2)})
        for n in range(200)
    ]
    made = page(with_hosts(*hosts, exposure=EXPOSURE))
    assert len(made.encode()) <= LARGEST
    assert made.count("golden answer: found Berlin, expected Paris") == 200 and "… and" not in made


# --- the pictures


def shapes(picture: str, tag: str) -> list[dict[str, str | None]]:
    return [given for name, given in Page(picture).tags if name == tag and "class" in given]


def test_states_take_their_part_of_the_bar() -> None:
    bars = shapes(states([host.status for host in example().hosts]), "rect")
    assert [bar["class"] for bar in bars] == [state.replace(" ", "-") for state in STATES]
    assert {bar["width"] for bar in bars} == {"98"}


def test_memory_is_drawn_to_one_scale() -> None:
    found = {bar["class"]: bar for bar in shapes(memory(MEMORY), "rect")}
    assert list(found) == ["weights", "activations", "context", "cache", "measured"]
    width = {name: float(bar["width"] or 0) for name, bar in found.items()}
    assert width["measured"] / 596 == pytest.approx(19866 / 23028, abs=0.01)
    ends = float(found["cache"]["x"] or 0) + width["cache"]
    assert ends / 596 == pytest.approx(MEMORY.forecast / 23028, abs=0.01)
    assert "(+0%)" in memory(MEMORY)


@pytest.mark.parametrize(
    "changed", [{"measured": 40_000}, {"gpu": 0, "measured": None}, {"cache": 60_000}, {"measured": 0}]
)
def test_memory_never_leaves_its_picture(changed: dict[str, Any]) -> None:
    found = MemoryParts(**{**MEMORY.model_dump(), **changed})
    for bar in shapes(memory(found), "rect"):
        assert float(bar["x"] or 0) >= 0 and float(bar["x"] or 0) + float(bar["width"] or 0) <= 600


def test_verdicts_stand_at_their_time() -> None:
    found = timeline(RELEASES)
    assert "4 verdicts" in found
    assert [each["class"] for each in shapes(found, "circle")] == ["proven", "proven"]
    places = [float(each["cx"] or 0) for each in shapes(found, "circle")]
    assert places == pytest.approx([220 + 360 * (8.463 / 17.246), 580], abs=1)
    # one verdict is no history, and neither is one without a time
    assert (
        timeline(RELEASES[:1]) == timeline([RELEASES[0], RELEASES[1].model_copy(update={"at": None})]) == ""
    )


def test_verdicts_of_one_moment_are_drawn() -> None:
    assert timeline([RELEASES[0], RELEASES[0]]).count("<circle") == 2


def test_differences_of_a_host_are_counted_where_they_are_cut() -> None:
    rows = [CHANGED] * 57
    made = page(with_hosts(HostReport(status=status("gpu-1", "differs", differences=rows))))
    assert "… and 17 more differences" in made


def main() -> int:
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(page(example()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
