"""The picture of `tritonhost watch`: what is done, what is at work, what is left; and how the host's answer is read."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from operations.facts import at_work
from operations.plan import progress, status
from operations.plan.columns import cells
from operations.plan.difference import difference
from operations.plan.difference_rows import Difference, FileStage
from operations.plan.observed.observed import Observed
from operations.plan.progress import Progress, Work
from tests.unit import builders
from tests.unit.stubs import Stubs
from tests.unit.test_status import CONVERGED, RELEASE, of

ENGINE = Work(
    "tritonhost-engine-4f2a9c31.service", 754.2, "[TRT-LLM] [I] Build 31 % CANARY_TOKEN=hf_CANARYcanary01"
)
WEIGHTS = Work("tritonhost-weights-77b0.service", 3725, "")
BARE = Observed(gpus=CONVERGED.gpus)


def fleet() -> list[Progress]:
    return [
        Progress(of(CONVERGED)),
        Progress(of(BARE, "gpu-2"), (ENGINE,)),
        Progress(of(BARE, "gpu-3", rows=[Difference("weights", "k", "absent", "complete")]), (WEIGHTS,)),
        Progress(status.unreachable("gpu-4", "m", "no route to host", 1)),
    ]


def test_marks_say_what_is_done_at_work_and_left() -> None:
    converged, bare, weights, lost = fleet()
    assert progress.marks(converged) == ["ok"] * 6
    host, image, of_weights, engine, release, serving = progress.marks(bare)
    assert (engine, int(host) > 5, int(image), int(of_weights)) == ("now", True, 2, 1)
    assert int(release) and int(serving)
    assert progress.marks(weights) == ["ok", "ok", "now", "ok", "ok", "ok"]
    assert progress.marks(lost) == ["?"] * 6


def test_every_stage_of_a_difference_has_a_column() -> None:
    # a stage without one would be left out of the picture in silence
    stages = {row.stage for row in difference(RELEASE, BARE, builders.FILES)}
    assert len(stages) > 6
    assert [stage for stage in stages if not progress._column_of(stage)] == []
    others = ["storage", "ownership", "selinux", "database", "pgvector image", "door image", "onnx"]
    others += get_args(FileStage)
    assert [stage for stage in others if not progress._column_of(stage)] == []


def test_picture_is_the_golden_one() -> None:
    head, first, second, third, fourth, counted = progress.lines(fleet())
    assert head.split() == [
        *("state", "host", "image", "weights", "engine", "release", "serving"),
        *("at", "work"),
    ]
    assert first.split() == ["gpu-1", "serving", *["ok"] * 6]
    assert second.endswith("engine-4f2a9c31 12:34: [TRT-LLM] [I] Build 31 % CANARY_TOKEN=(removed)")
    assert third.endswith("weights-77b0 1:02:05")
    assert fourth.endswith("no route to host")
    assert counted == "4 hosts: 1 serving, 2 not deployed, 1 unreachable"


def test_page_shows_what_the_tool_draws() -> None:
    rows = [Difference(stage, "a", "b", "c") for stage in ("engine", "release", "service", "service")]
    unit = Work("tritonhost-engine-4f2a9c31.service", 754.2, "[TRT-LLM] [I] Build phase: 31 %")
    more = [*rows, *(Difference("packages", "a", "b", "c"),) * 14]
    hosts = [
        Progress(of(CONVERGED)),
        Progress(of(BARE, "gpu-2", rows=rows), (unit,)),
        Progress(of(BARE, "gpu-3", rows=more)),
        Progress(status.unreachable("gpu-4", "m", "no route to host", 1)),
    ]
    page = (Path(__file__).resolve().parents[2] / "docs/how-to/status.md").read_text("utf-8")
    shown = "".join(f"    {line}\n" for line in progress.lines(hosts))
    assert shown in page, shown


@pytest.mark.parametrize("total", [30, 60, 80, 120])
@pytest.mark.parametrize("height", [5, 6, 24])
def test_picture_fits_the_terminal(total: int, height: int) -> None:
    lines = progress.lines(fleet(), total, height)
    assert len(lines) < height  # the cursor stands in the line below
    assert all(cells(line) <= total for line in lines)


def test_hosts_that_are_waited_for_are_shown_first() -> None:
    hosts = [Progress(of(CONVERGED, f"gpu-{n}")) for n in range(50)]
    hosts[40] = Progress(of(BARE, "gpu-40"))
    lines = progress.lines(hosts, 100, 10)
    assert [line.split()[0] for line in lines[1:-2]] == [*(f"gpu-{n}" for n in range(5)), "gpu-40"]
    assert lines[-2] == "44 more"


# --- what the host answers


def test_bare_host_has_no_work(tmp_path: Path) -> None:
    done = Stubs(tmp_path / "bin").run(at_work.command())
    assert done.returncode == 0
    assert at_work.at_work(done.stdout.split("\n")) == ()


def test_units_are_read_with_their_last_line(tmp_path: Path) -> None:
    stubs = Stubs(tmp_path / "bin")
    began = int(float(Path("/proc/uptime").read_text("utf-8").split()[0]) * 1e6) - 90_000_000
    stubs.add(
        "systemctl",
        f'case "$*" in show*) echo {began} ;; '
        "*) printf '%s\\n' 'tritonhost-a.service loaded active running a b' "
        "'tritonhost-b.service loaded activating start c' ;; esac",
    )
    stubs.add(
        "journalctl",
        "case \"$*\" in *-a.service*) printf 'first\\n 10 %%\\r 20 %%\\n\\n' ;; *) yes long | head -n 9000 ;; esac",
    )
    first, second = at_work.at_work(stubs.run(at_work.command()).stdout.split("\n"))
    assert (first.unit, first.line, second.unit, second.line) == (
        *("tritonhost-a.service", "20 %"),
        *("tritonhost-b.service", "long"),
    )
    assert 89 < first.seconds < 100


def test_answer_that_ends_early_is_refused() -> None:
    with pytest.raises(ValueError, match="ends early"):
        at_work.at_work(["\x1euptime", "12.5", "\x1ework"])
