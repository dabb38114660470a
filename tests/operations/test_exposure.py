"""`tritonhost exposure`: what the host's script prints and what is read of it, saved facts, the feed, exit codes."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyinfra.api.exceptions import ConnectError

from operations import exposure, pyinfra_patches
from operations.facts import versions
from operations.facts.parse import sections
from operations.plan.audit import bulletins
from operations.plan.audit.fleet import WITHOUT_BULLETINS, Found, load
from operations.plan.paths import PROJECT
from tests.unit.builders import DATA, settings
from tests.unit.csaf_documents import document, triton, written
from tests.unit.stubs import Stubs
from tests.unit.versions_output import PART, RELEASE, output

TODAY = date(2026, 11, 30)


# --- the facts of a host


def test_host_is_read_with_each_component() -> None:
    found, identity, problem = versions.versions(output(), "triton")
    assert {(one.component, one.version, one.where) for one in found} == {
        ("docker-ce", "29.9.0", "rpm"),
        ("containerd.io", "2.2.6", "rpm"),
        ("nvidia-container-toolkit", "1.20.0", "rpm"),
        ("driver", "580.178.04", "loaded"),
        ("nginx", "1.30.7", "running"),
        *((name, version, f"release {RELEASE['release']}") for name, version in (("triton", "24.09"), ("tensorrt-llm", "0.13.0"), ("tensorrt", "10.4.0"))),
    }  # fmt: skip
    assert (identity, problem) == (RELEASE["release"], "")


def test_door_has_a_python_that_is_not_compared() -> None:
    said = [f"{PART}triton", "PYTHON_VERSION=3.12.3", f"{PART}triton-door", "PYTHON_VERSION=3.11.15"]
    found, _, problem = versions.versions(output(containers=said), "triton")
    # of the server's own image another variable would be the one to trust
    assert [one.version for one in found if one.component == "python"] == ["3.11.15"]
    assert "python" in WITHOUT_BULLETINS and problem == ""
    # the lab's image has no such variable
    assert versions.versions(output(containers=[f"{PART}triton-door"]), "triton")[2] == ""


def test_engine_older_than_its_package_is_a_version_of_its_own() -> None:
    found, _, _ = versions.versions(output(engine=["28.5.2"]), "triton")
    assert Found(component="docker-ce", version="28.5.2", where="running") in found
    said = ["Cannot connect to the Docker daemon at unix:///var/run/docker.sock."]
    found, _, problem = versions.versions(output(engine=said), "triton")
    assert [one.version for one in found if one.component == "docker-ce"] == ["29.9.0"]
    assert problem == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"driver": []}, "driver: none is loaded, and nvidia-smi says nothing"),
        ({"driver": ["Failed to initialize NVML"]}, "driver: Failed to initialize NVML"),
        ({"release": ["{"]}, "release.json: JSONDecodeError"),
        ({"release": ["{}"]}, "release.json: KeyError"),
        ({"release": ["[]"]}, "release.json: TypeError"),
        ({"containers": [f"{PART}triton-gateway"]}, "gateway: its image does not say NGINX_VERSION"),
    ],
)
def test_what_could_not_be_read_is_said(changed: dict[str, list[str]], said: str) -> None:
    found, _, problem = versions.versions(output(**changed), "triton")
    assert problem.startswith(said)
    assert "docker-ce" in {one.component for one in found}


def test_host_without_a_release_is_read_completely() -> None:
    _, identity, problem = versions.versions(output(release=[], containers=[]), "triton")
    assert (identity, problem) == ("", "")


def test_output_that_ends_early_is_an_error() -> None:
    with pytest.raises(ValueError, match="ends early"):
        versions.versions(output()[:-1], "triton")


# --- the script


def run_script(stubs: Stubs, root: Path) -> dict[str, list[str]]:
    own = settings()
    script = versions.script(own).replace(versions.MODULE, str(root / "module"))
    script = script.replace(f"_ROOT={own.data_root}\n", f"_ROOT={root}/data\n")
    done = stubs.run(script)
    assert (done.returncode, done.stderr) == (0, "")
    return sections(done.stdout.split("\n"))


@pytest.mark.slow
def test_script_reads_a_bare_host(stubs: Stubs, tmp_path: Path) -> None:
    for name in ("rpm", "docker", "nvidia-smi"):
        stubs.add(name, "exit 127")
    found = run_script(stubs, tmp_path)
    assert list(found) == ["packages", "driver", "engine", "containers", "release", "end"]
    assert "".join(line for lines in found.values() for line in lines).strip() == ""


@pytest.mark.slow
def test_script_reads_the_release_of_the_running_container(stubs: Stubs, tmp_path: Path) -> None:
    for name, where in (("old", "data/current"), ("new", "data/releases/1f2e")):
        (tmp_path / where).mkdir(parents=True)
        (tmp_path / where / "release.json").write_text(f'{{"release": "{name}"}}', encoding="utf-8")
    (tmp_path / "module").write_text("580.178.04\n", encoding="utf-8")
    stubs.add("rpm", "printf 'docker-ce\\t3:29.9.0-1.el9\\n'")
    stubs.add("nvidia-smi", "echo 595.0.0")
    inspected = 'case $5 in triton) printf "$SAID" ;; *-gateway) printf "true\\t\\nPATH=/bin\\nNGINX_VERSION=1.30.7\\nKEY=secret\\n" ;; *-door) printf "true\\t\\nPYTHON_VERSION=3.11.15\\nDOOR=secret\\n" ;; *) exit 1 ;; esac'
    stubs.add(
        "docker",
        f'SAID="true\\t1f2e\\nHF_TOKEN=secret\\n"; [ "$1" = version ] && echo 29.9.0 || {{ {inspected}; }}',
    )
    found = run_script(stubs, tmp_path)
    assert found["driver"] == ["580.178.04"]
    assert found["release"] == ['{"release": "new"}']
    assert {"NGINX_VERSION=1.30.7", "PYTHON_VERSION=3.11.15"} <= {*found["containers"]}
    assert "secret" not in str(found)
    assert len([call for call in stubs.calls if "inspect" in call]) == 4

    stubs.add("docker", "exit 1")
    assert run_script(stubs, tmp_path)["release"] == ['{"release": "old"}']
    # a label that is no id reaches no path
    stubs.add("docker", '[ "$5" = triton ] && printf "true\\t../../etc\\n"')
    assert run_script(stubs, tmp_path)["release"] == ['{"release": "old"}']


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path / "bin")


# --- one host


class Host:
    name, print_prefix, connected = "gpu-1/llama", "", False
    data: ClassVar[dict[str, Any]] = {"_sudo": False}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(pyinfra_patches, "data_of", lambda _: {**DATA, "model": "gpt2-medium"})
    return Host()


def test_host_that_is_not_reached_is_a_row_with_its_reason(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> Any:
        raise ConnectError("no route\nto host")

    monkeypatch.setattr(pyinfra_patches, "connected", refuse)
    entry = exposure.read(host)
    assert (entry.host, entry.problem, entry.components) == ("gpu-1/llama", "no route to host", [])
    assert (entry.wanted.model, entry.wanted.kind) == ("gpt2-medium", "engine")
    assert [waiver.component for waiver in entry.wanted.waivers][:2] == ["triton", "tensorrt-llm"]


# --- the command


FACTS: dict[str, Any] = {
    "format": 1,
    "observed": "2026-11-29T10:00:00Z",
    "hosts": [
        {
            "host": "gpu-1/llama",
            "release": "1f",
            "components": [{"component": "triton", "version": "26.05"}, {"component": "driver", "version": "580.178.04"}],
            "wanted": {"model": "llama-2-7b", "kind": "engine", "source": "pull", "image_release": "26.05"},
        },
        {"host": "gpu-2", "release": "2f", "components": [{"component": "triton", "version": "26.07"}]},
    ],
}  # fmt: skip
LOST = {"host": "gpu-3", "problem": "no route to host"}


def facts(tmp_path: Path, **changed: Any) -> str:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({**FACTS, **changed}), encoding="utf-8")
    return str(path)


def main(*arguments: str) -> int:
    return exposure.main(arguments, "tritonhost exposure", TODAY)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host and no network is asked: of either, a connection would be a failure."""

    def refuse(*_: object) -> Any:
        raise AssertionError("a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr(bulletins, "OWN", PROJECT / "build" / "no-such-feed.json")


def test_saved_facts_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--facts", facts(tmp_path)) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert (
        lines[0]
        == "bulletins of 2026-09-30, 61 days old, the newest of 2026-10-27; more than 60 days: make it again with --update-feed"
    )
    assert lines[1].startswith("  files/exposure/bulletins.json: github.com/NVIDIA/product-security")
    assert "2 hosts of 2026-11-29T10:00+00:00: 1 exposed" in lines
    assert "gpu-1/llama  triton     26.05    NVIDIA 5865 and 1 more  9.8   26.07" in lines
    assert (
        '  triton on gpu-1/llama: image.release = "26.07" of inventories/models/llama-2-7b.toml: then its digest: tritonhost lock'
        in lines
    )
    assert err == ""


def test_limit_chooses_among_saved_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--facts", facts(tmp_path), "--limit", "gpu-2") == 0
    assert "nothing is exposed" in capsys.readouterr().out
    assert main("--facts", facts(tmp_path), "--limit", "gpu-1") == 1
    capsys.readouterr()
    assert refused(capsys, "--facts", facts(tmp_path), "--limit", "gpu-9").startswith(
        "tritonhost: --limit: found gpu-9"
    )


def test_host_that_was_not_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = FACTS["hosts"][1]
    assert main("--facts", facts(tmp_path, hosts=[good, LOST])) == 2
    out, err = capsys.readouterr()
    assert "gpu-3  not read" in out.splitlines()
    assert "1 not read" in out
    assert err == "tritonhost: gpu-3: not read: no route to host\n"
    assert main("--facts", facts(tmp_path, hosts=[*FACTS["hosts"], LOST])) == 1
    assert main("--facts", facts(tmp_path, hosts=[good])) == 0


def test_json_is_the_whole_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--facts", facts(tmp_path), "--json") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == 1
    assert [(one["host"], one["bulletin"], one["cvss"]) for one in answer["findings"]] == [
        ("gpu-1/llama", "NVIDIA 5865", 9.8),
        ("gpu-1/llama", "NVIDIA 5875", 7.5),
    ]
    assert answer["proposed"][0]["value"] == "26.07"
    assert answer["feed"]["old"] is True


def test_what_a_host_says_is_one_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = {
        "host": "gpu-4",
        "release": "1f",
        "components": [{"component": "haproxy", "version": "2\x1b[31m\n8"}],
    }
    lost = {"host": "gpu-5", "problem": "a\x1b]0;title\x07\nb"}
    main("--facts", facts(tmp_path, hosts=[odd, lost]))
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "  gpu-4: haproxy 2 [31m 8: no bulletins are read for it" in out.splitlines()
    assert len(err.splitlines()) == 1


def test_facts_are_the_same_after_they_were_saved(tmp_path: Path) -> None:
    from operations.plan.audit import fleet

    saved = load(Path(facts(tmp_path)))
    path = tmp_path / "again.json"
    path.write_text(fleet.as_text(saved), encoding="utf-8")
    assert load(path) == saved


def test_save_writes_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = load(Path(facts(tmp_path)))
    monkeypatch.setattr(exposure, "of_hosts", lambda given: saved)
    assert main("--save", str(tmp_path / "new" / "saved.json")) == 1
    assert load(tmp_path / "new" / "saved.json") == saved


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as ended:
        main(*arguments)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "found text that is no JSON"),
        ('{"format": 1}', "observed: found"),
        (
            '{"format": 1, "observed": "2026-11-29T10:00:00Z", "hosts": [{"host": ""}]}',
            "hosts.0.host: found nothing",
        ),
        ('{"format": 2, "observed": "2026-11-29T10:00:00Z", "hosts": []}', "format: found 2"),
    ],
)
def test_facts_that_are_none_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    path = tmp_path / "facts.json"
    path.write_text(content, encoding="utf-8")
    line = refused(capsys, "--facts", str(path))
    assert line.startswith(f"tritonhost: {path}: {said}")
    assert "tritonhost exposure --save FILE" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--facts", "none.json"], "tritonhost: none.json: found No such file or directory"),
        (["--facts", "a", "--save", "b"], "tritonhost: --save: found it beside --facts"),
        (["--update-feed", "a", "--json"], "tritonhost: --json: found it beside --update-feed"),
        (["--source", "x"], "tritonhost: --source: found it without --update-feed"),
        (["--update-feed", "a", "--collected", "soon"], "tritonhost: --collected: found soon, expected a day as YYYY-MM-DD"),
        (["--update-feed", "none.json"], "tritonhost: none.json: found No such file"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    if "--json" in arguments:
        with pytest.raises(SystemExit):
            main(*arguments)
        assert said in capsys.readouterr().err
    else:
        assert refused(capsys, *arguments).startswith(said)


# --- the feed


def test_feed_is_made_of_a_folder_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(
        tmp_path / "2026",
        triton("6000", "2026-11-20", "All versions prior to 26.09", "26.09", 9.1),
        triton("6001", "2026-11-21", "see the notes", ""),
    )
    place = str(tmp_path / "feed.json")
    assert (
        main("--update-feed", str(folder), "--feed", place, "--source", "a test", "--collected", "2026-11-25")
        == 0
    )
    out, err = capsys.readouterr()
    assert out == f"{place}: 1 bulletin, the newest of 2026-11-20\n"
    understood, lacking = err.splitlines()
    assert (
        f"{understood}\n"
        == 'tritonhost: not understood: NVIDIA 6001: CVE-2026-6001: Triton Inference Server: affected "see the notes"\n'
    )
    assert lacking.startswith("tritonhost: not among these documents: NVIDIA 5883, NVIDIA 5861, ")
    assert lacking.endswith(", which files/exposure/bulletins.json has")
    assert main("--facts", facts(tmp_path), "--limit", "gpu-2", "--feed", place) == 1
    out, _ = capsys.readouterr()
    assert out.startswith("bulletins of 2026-11-25, 5 days old, the newest of 2026-11-20\n")
    assert "NVIDIA 6000" in out
    assert "1 sentence of the bulletins could not be read" in out


def test_feed_of_the_project_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulletins, "OWN", tmp_path / "inventories" / "bulletins.json")
    folder = written(tmp_path / "2026", triton("6000", "2026-11-20", "All versions prior to 26.09", "26.09"))
    assert main("--update-feed", str(folder)) == 0
    assert bulletins.load(bulletins.OWN).collected == TODAY
    assert main("--facts", facts(tmp_path), "--limit", "gpu-2") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "found text that is no JSON"),
        ('{"document": {"csaf_version": "2.0"}}', "found no table tracking"),
    ],
)
def test_malformed_document_is_one_line_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    (tmp_path / "2026").mkdir()
    path = tmp_path / "2026" / "broken.json"
    path.write_text(content, encoding="utf-8")
    assert refused(capsys, "--update-feed", str(path.parent)).startswith(f"tritonhost: {path}: {said}")


def test_feed_without_a_bulletin_of_ours_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written(
        tmp_path / "2026", document("1", "2026-01-01", {"CVE-1": (7.0, [("All", "NVIDIA Apex", "1", "2")])})
    )
    assert "found no bulletin about a component of ours" in refused(capsys, "--update-feed", str(folder))
    assert not (tmp_path / "feed.json").exists()


# --- the page


def test_example_of_the_page_is_the_command_s(capsys: pytest.CaptureFixture[str]) -> None:
    page = (PROJECT / "docs/how-to/exposure.md").read_text("utf-8")
    shown = page.partition("\n## The output\n\n")[2].partition("\n\n- A row")[0]
    facts = str(PROJECT / "tests/unit/captures/exposure-facts.json")
    assert exposure.main(["--facts", facts], "tritonhost exposure", date(2026, 11, 10)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "\n".join(f"    {line}".rstrip() for line in lines) == shown
