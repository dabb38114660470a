"""The command `bench`: its words, the host it measures, what it records, and its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import ConnectError

from operations import bench, bench_results
from operations.bench import main
from operations.plan.release import Release
from operations.plan.serving.bench_result import BenchDocument, text_of
from operations.plan.swap import bench_of
from tests.unit.builders import release as plain_release
from tests.unit.test_bench_result import figures, result
from tests.unit.test_door import with_door

URL = "http://127.0.0.1:1/v1"
RELEASE = with_door()


class Asked(list[tuple[str, list[str]]]):
    """The URL and the arguments of each measurement. + errors: of its requests; release: that the door says"""

    release = RELEASE.id
    errors = 0
    problem = ""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()

    def process(
        _: str, url: str, text: str, __: float, arguments: list[str]
    ) -> tuple[list[dict[str, Any]], str]:
        found.append((url, arguments))
        if found.problem:
            return [], found.problem
        times = [
            {
                "phase": phase["name"],
                "number": request["number"],
                "began_s": request["at_s"] or 0.1 * place,
                "first_s": 0.05,
                "seconds": 0.45,
                "tokens": 9,
                "error": "cut" if place < found.errors else "",
            }
            for phase in json.loads(text)
            for place, request in enumerate(phase["requests"])
        ]
        return [{"model": "named", "release": found.release, "ignore_eos": False}, *times], ""

    monkeypatch.setattr(bench_results, "in_a_process", process)
    return found


def run(tmp_path: Path, *words: str) -> int:
    return main([*words, "--directory", str(tmp_path)])


def written(tmp_path: Path) -> BenchDocument:
    [file] = tmp_path.rglob("*.json")
    return bench_results.read(file)


def test_smoke_of_an_address(tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--url", "http://h:1") == 0
    assert asked == [("http://h:1/v1", [])]
    document = written(tmp_path)
    assert (document.model, document.host, document.profile) == ("named", "h", "smoke")
    assert not document.ignore_eos and document.slo is None
    assert [phase.name for phase in document.phases] == ["alone", "together"]
    assert f"written: {tmp_path}/named/" in capsys.readouterr().out


def test_document_is_printed_for_a_program(
    tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE_KEY", "sesame")
    words = ("--profile", "interactive", "--rate", "3", "--seconds", "4", "--slo", "ttft_ms=10")
    assert run(tmp_path, "--url", URL, "--model", "m", "--key-variable", "GATE_KEY", *words, "--json") == 0
    printed = capsys.readouterr().out
    assert BenchDocument.model_validate_json(printed) == written(tmp_path) and "sesame" not in printed
    assert asked == [(URL, ["--model", "m", "--key-variable", "GATE_KEY"])]
    [phase] = written(tmp_path).phases
    assert (phase.rate, phase.figures.requests, phase.figures.goodput_per_s) == (3, 12, 0)


def test_failed_request_is_exit_code_1(tmp_path: Path, asked: Asked) -> None:
    asked.errors = 1
    assert run(tmp_path, "--url", URL) == 1
    assert written(tmp_path).phases[0].figures.errors == 1


def test_capacity_that_is_none_is_exit_code_1(tmp_path: Path, asked: Asked) -> None:
    words = ("--url", URL, "--profile", "capacity", "--seconds", "2")
    assert run(tmp_path, *words, "--slo", "ttft_ms=10") == 1
    assert len(asked) == 5
    document = written(tmp_path)
    assert document.capacity_per_s == 0 and [each.within_slo for each in document.phases] == [False] * 5
    assert [each.rate for each in document.phases] == [0.125, 0.25, 0.5, 1, 2]


def test_door_that_does_not_answer_is_exit_code_5(
    tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.problem = "Connection refused"
    assert run(tmp_path, "--url", URL) == 5
    assert capsys.readouterr().err == "tritonhost: Connection refused\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a", "b"], "HOST: found a b, expected one host"),
        (["a", "--url", URL], "HOST: found a, expected one host, or --url without one"),
        (["--url", "gpu-1:8443"], "--url: found gpu-1:8443, expected such as https://"),
        (["--url", URL, "--rate", "0"], "--rate: found 0.0, expected above 0, at most 1024"),
        (["--url", URL, "--seconds", "nan"], "--seconds: found nan"),
        (["--url", URL, "--rate", "1000", "--seconds", "3000"], "--seconds: found 3000000 requests"),
        (["--url", URL, "--record"], "--record: found smoke, expected a HOST and --profile smoke"),
        (["a", "--record", "--profile", "capacity"], "--record: found capacity"),
        (["--url", URL, "--aiperf", "x"], "--aiperf: found smoke, expected --profile interactive or"),
        (["--url", URL, "--key-variable", "NO_SUCH"], "--key-variable: found no NO_SUCH in the environment"),
        (["--url", URL, "--slo", "x=1"], "--slo: found"),
        (["compare", "a.json"], "compare: found 1 files, expected two results, A and B"),
        (["compare", "a", "b", "--allowed", "1"], "--allowed: found 1.0"),
        (["compare", "a.json", "b.json"], "a.json: found No such file or directory"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], line: str, asked: Asked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, *words)
    assert ended.value.code == 2 and asked == []
    assert capsys.readouterr().err.startswith(f"tritonhost: {line}")


def test_directory_that_cannot_be_written_is_refused(
    tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["--url", URL, "--directory", str(tmp_path / "file")])
    assert ended.value.code == 2 and "--directory: found" in capsys.readouterr().err


# --- a host of the inventory


class Host:
    """One of the inventory's."""

    connected = True

    def __init__(self, name: str = "gpu-1") -> None:
        self.name = name

    def disconnect(self) -> None:
        self.connected = False


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float | str]]:
    """What the host was told to remember; it is reached at another port, and is to have the release."""
    found: list[dict[str, float | str]] = []

    @contextmanager
    def connected(_: object) -> Iterator[None]:
        yield

    @contextmanager
    def forwarded(_: object, address: str, port: int) -> Iterator[str]:
        assert (address, port) == ("127.0.0.1", 9000)
        yield "127.0.0.1:5555"

    monkeypatch.setattr(bench.preflight, "state_and_hosts", lambda given: (None, hosts(given.limit)))
    monkeypatch.setattr(bench.pyinfra_patches, "connected", connected)
    monkeypatch.setattr(bench, "forwarded", forwarded)
    monkeypatch.setattr(bench.convergence, "planned", lambda: (RELEASE, None))
    monkeypatch.setattr(bench, "measured", lambda *given: found.append(given[3]))
    return found


def hosts(limit: list[str]) -> list[Host]:
    return [each for each in (Host(), Host("gpu-2")) if each.name in (limit or [each.name])]


def test_host_is_measured_through_its_door(
    tmp_path: Path, asked: Asked, recorded: list[dict[str, float | str]]
) -> None:
    assert run(tmp_path, "gpu-1") == 0
    assert asked == [("http://127.0.0.1:5555/v1", [])] and recorded == []
    document = written(tmp_path)
    assert (document.host, document.gpu, document.gpus) == ("gpu-1", RELEASE.gpus[0].name, 1)
    # the profile's name, not the one for clients: as the gate writes it
    assert document.model == RELEASE.settings.model


def test_measured_speed_is_recorded_for_the_gate(
    tmp_path: Path, asked: Asked, recorded: list[dict[str, float | str]]
) -> None:
    assert run(tmp_path, "gpu-1", "--record") == 0
    [figures_of_it] = recorded
    assert figures_of_it["bench_first_ms"] == 50 and figures_of_it["bench_of"] == bench_of(RELEASE)
    assert figures_of_it["bench_rate"] == written(tmp_path).phases[1].figures.tokens_per_s


@pytest.mark.parametrize("changed", [{"release": "other"}, {"errors": 1}])
def test_speed_of_another_release_is_not_recorded(
    tmp_path: Path, asked: Asked, recorded: list[dict[str, float | str]], changed: dict[str, Any]
) -> None:
    vars(asked).update(changed)
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, "gpu-1", "--record")
    assert ended.value.code == 2 and recorded == []


@pytest.mark.parametrize(("words", "found"), [([], "gpu-1, gpu-2"), (["gpu-9"], "none")])
def test_one_host_is_measured(
    tmp_path: Path,
    asked: Asked,
    recorded: list[dict[str, float | str]],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    found: str,
) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path, *words)
    assert f"HOST: found {found}, expected one of them" in capsys.readouterr().err


def test_host_without_a_door_is_refused(
    tmp_path: Path,
    asked: Asked,
    recorded: list[dict[str, float | str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain: Release = plain_release()
    monkeypatch.setattr(bench.convergence, "planned", lambda: (plain, None))
    with pytest.raises(SystemExit):
        run(tmp_path, "gpu-1")
    assert "door: found none, expected door = {} in the inventory" in capsys.readouterr().err


def test_host_that_is_not_reached_is_exit_code_5(
    tmp_path: Path,
    asked: Asked,
    recorded: list[dict[str, float | str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(_: object) -> None:
        raise ConnectError("no route to host")

    monkeypatch.setattr(bench.pyinfra_patches, "connected", refused)
    monkeypatch.setattr(bench.host_key, "problem", lambda *_: "")
    assert run(tmp_path, "gpu-1") == 5
    assert capsys.readouterr().err == "tritonhost: gpu-1: no route to host\n"


# --- compare


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    one, two = tmp_path / "a.json", tmp_path / "b.json"
    one.write_text(text_of(result()))
    two.write_text(text_of(result(figures(first=46.0), release="other")))
    return str(one), str(two)


def test_comparison_ends_with_1_where_b_is_worse(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *pair]) == 1
    assert "alone: time to first token, p50" in capsys.readouterr().out
    assert main(["compare", *pair, "--allowed", "0.2"]) == 0
    assert main(["compare", *pair[::-1]]) == 0


def test_comparison_is_printed_for_a_program(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, picture = tmp_path / "new" / "change.html", tmp_path / "change.svg"
    assert main(["compare", *pair, "--json", "--page", str(page)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["worse"] and found["a"]["release"] == "0123456789abcdef"
    assert [row["label"] for row in found["figures"] if row["worse"]] == ["alone: time to first token, p50"]
    assert page.read_text().startswith("<!doctype html>")
    assert main(["compare", *pair, "--page", str(picture)]) == 1
    assert picture.read_text().startswith("<svg xmlns=")


def test_page_that_cannot_be_written_is_refused(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *pair, "--page", str(tmp_path)])
    assert ended.value.code == 2 and "--page: found" in capsys.readouterr().err
