"""The command `tritonhost`: its words, what init writes, what is refused, completion. No wheel, no host."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import tritonhost
from tritonhost import command, completion, project

CHECKOUT = Path(__file__).resolve().parents[2]
WRITTEN = {
    ".gitignore",
    "config.py",
    "deploy.py",
    "inventories/group_data/all.py",
    "inventories/group_data/oci.py",
    "inventories/models/gpt2-medium.toml",
    "inventories/oci.py",
    "inventories/oci.toml",
    "inventories/ssh_config",
    "operations/__init__.py",
}


@pytest.fixture(autouse=True)
def this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command sets a variable, a signal's handler and sys.path: they are as before after a test."""
    monkeypatch.delenv(tritonhost.PROJECT, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
    os.environ.pop(tritonhost.PROJECT, None)


def words(text: str) -> list[str]:
    return text.split()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line that the command ends with."""
    assert command.main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A new project, which is the current directory."""
    assert command.main(["init", str(tmp_path / "site")]) == 0
    capsys.readouterr()
    monkeypatch.chdir(tmp_path / "site")
    return tmp_path / "site"


# --- version and usage


def test_version_is_that_of_package_and_changelog(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tritonhost {tritonhost.__version__}\n"
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "tritonhost.__version__"}
    headings = re.findall(r"(?m)^## (\S+)", (CHECKOUT / "CHANGELOG.md").read_text("utf-8"))
    assert headings[0] == tritonhost.__version__


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "tritonhost: missing command; see tritonhost --help"),
        (["pln"], "tritonhost: no such command 'pln'"),
        (["--verison"], "tritonhost: no such option"),
        (["init"], "tritonhost init: missing argument 'DIR'; see tritonhost init --help"),
        (["init", "a", "b"], "tritonhost init: got unexpected extra argument (b)"),
        (["completion", "csh"], "tritonhost completion: invalid value for '{bash|zsh|fish}': 'csh'"),
        (["deploy", "--dry", "inventories/oci.py"], "tritonhost deploy: found inventories/oci.py behind"),
        (
            ["releases", "-y", "a.py"],
            "tritonhost releases: found a.py behind other words, expected the inventory first",
        ),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *arguments).startswith(expected)


@pytest.mark.parametrize(
    "name", ["deploy", "status", "releases", "verify", "preflight", "exposure", "replay", "report", "bench"]
)
def test_directory_without_a_project_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, name)
    assert line.startswith(f"tritonhost: {tmp_path}: found no project, expected config.py and inventories/")
    assert "tritonhost init DIR" in line


def test_directory_that_was_removed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "No such file or directory" in refused(capsys, "plan", "profiles", code=1)


def test_interrupt_ends_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    monkeypatch.setattr(command.command.commands["currency"], "callback", interrupted)
    with pytest.raises(SystemExit) as ended:
        command.main(["currency"])
    assert ended.value.code == command.INTERRUPTED == 130
    assert capsys.readouterr().err == "tritonhost: interrupted; run the same command again\n"


# --- init


def test_init_writes_a_project(made: Path) -> None:
    found = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert found == WRITTEN
    for name in (*project.COPIED, "inventories/models/gpt2-medium.toml"):
        assert (made / name).read_bytes() == (CHECKOUT / name).read_bytes(), name
    tomllib.loads((made / "inventories/oci.toml").read_text("utf-8"))


def test_init_begins_with_the_model_that_is_named(tmp_path: Path) -> None:
    assert command.main(["init", str(tmp_path), "--model", "mixtral-8x7b"]) == 0
    settings = runpy.run_path(str(tmp_path / "inventories/group_data/all.py"))
    assert settings["model"] == "mixtral-8x7b"
    assert [path.stem for path in (tmp_path / "inventories/models").iterdir()] == ["mixtral-8x7b"]


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_init_overwrites_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine", "utf-8")
    line = refused(capsys, "init", str(tmp_path))
    assert line.startswith(f"tritonhost init: {tmp_path}: found {name}, expected a directory without it")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text("utf-8") == "mine"


def test_init_refuses_what_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    line = refused(capsys, "init", str(tmp_path / "file" / "site"))
    assert "found Not a directory, expected a directory that can be written" in line
    line = refused(capsys, "init", str(tmp_path / "site"), "--model", "gpt3")
    assert line.startswith("tritonhost init: --model: found gpt3, expected one of clip-search, gpt2-medium")
    assert not (tmp_path / "site").exists()


def test_stub_without_the_package_says_so(made: Path) -> None:
    for name in ("config.py", "operations/__init__.py"):
        done = subprocess.run(
            [sys.executable, "-S", "-I", name], cwd=made, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        [line] = done.stderr.splitlines()
        assert "found no package tritonhost" in line and "expected the environment" in line


# --- a project and the code


def test_files_of_the_tree_run_in_a_project(made: Path) -> None:
    module: dict[str, Any] = {"__file__": str(made / "inventories" / "group_data" / "oci.py")}
    tritonhost.run("inventories/group_data/oci.py", module)
    assert module["ssh_user"] == "opc"
    assert os.environ[tritonhost.PROJECT] == str(made)
    assert sys.path[0] == str(CHECKOUT) or str(CHECKOUT) in sys.path


def test_stub_of_operations_leads_to_the_tree(made: Path) -> None:
    found = runpy.run_path(str(made / "operations" / "__init__.py"))
    assert found["__path__"] == [str(CHECKOUT / "operations")]
    assert os.environ[tritonhost.PROJECT] == str(made)


@pytest.mark.slow
def test_project_finds_its_own_files_first(made: Path) -> None:
    """In a process of its own: the places are read once, when the code is imported."""
    own = (made / "inventories/models/gpt2-medium.toml").read_text("utf-8")
    (made / "inventories/models/mine.toml").write_text(own.replace("on one GPU", "of mine", 1), "utf-8")
    (made / "inventories/models/gpt2-medium.toml").write_text(own.replace("on one GPU", "changed"), "utf-8")
    (made / "files/documents").mkdir(parents=True)
    (made / "files/documents/notes.jsonl").write_text("{}\n", "utf-8")
    code = """if True:
        import json
        from operations import release
        from operations.intake import gateway_secrets, secrets
        from operations.plan.profile import own_models
        from operations.plan.__main__ import GROUP_DATA
        from operations.plan.profile.profiles import load_profile, profile_names
        print(json.dumps({
            "names": profile_names(), "gpt2": load_profile("gpt2-medium").summary, "mine": load_profile("mine").kind,
            "documents": own_models.documents("notes"), "shapes": bool(own_models.documents("shapes")),
            "places": [str(p) for p in (GROUP_DATA, gateway_secrets.PROJECT, release.BUILD, secrets.INVENTORY)],
        }))"""
    environment = {**os.environ, tritonhost.PROJECT: str(made)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    shipped = {path.stem for path in (CHECKOUT / "inventories/models").glob("*.toml")}
    assert found["names"] == sorted({*shipped, "mine"})
    assert found["gpt2"] == "gpt2-medium changed" and found["mine"] == "engine"
    assert found["documents"] == "{}\n" and found["shapes"]
    places = ("inventories/group_data", "", "build", "inventories/oci.toml")
    assert found["places"] == [str(made / place) for place in places]


def test_plan_runs_without_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["plan", "profiles"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert command.main(["plan", "profiles", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [f"{row['name']:20} {row['summary']}" for row in rows] == table
    assert {row["kind"] for row in rows} == {"engine", "llmapi", "plan"}
    assert command.main(["plan", "explain", "no-such-model"]) == 2
    assert capsys.readouterr().err.startswith("tritonhost: model: found no-such-model, expected a profile in")


def test_matrix_as_json_has_the_cells_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["plan", "matrix"]) == 0
    table = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    assert command.main(["plan", "matrix", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert table == [list(rows[0]), *(list(row.values()) for row in rows)]


@pytest.mark.parametrize("name", ["plan", "bundle", "currency"])
def test_programs_of_the_checkout_show_their_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: tritonhost {name} ")


# --- pyinfra and pytest


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("deploy", "pyinfra inventories/oci.py deploy.py"),
        ("deploy --dry -y", "pyinfra inventories/oci.py deploy.py --dry -y"),
        (
            "deploy inventories/lab.py -y --limit gpu-1 --group-data more.py --data model=a.b",
            "pyinfra inventories/lab.py deploy.py -y --limit gpu-1 --group-data more.py --data model=a.b",
        ),
        ("deploy -vh", "pyinfra inventories/oci.py deploy.py -vh"),
        ("releases --limit gpu-1", "pyinfra -y inventories/oci.py operations.release.status --limit gpu-1"),
    ],
)
def test_pyinfra_gets_the_words_behind_the_inventory(
    given: str, expected: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed: list[list[str]] = []

    class Replaced(BaseException):
        """In the place of a process that is replaced."""

    def execv(program: str, argv: list[str]) -> None:
        executed.append([program, *argv])
        raise Replaced

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Replaced):
        command.main(words(given))
    assert executed == [[sys.executable, sys.executable, "-m", *words(expected)]]
    assert os.environ[tritonhost.PROJECT] == str(made)


@pytest.mark.parametrize(("code", "printed"), [(0, True), (1, True), (2, False)])
def test_releases_as_json_list_the_hosts_that_answered(
    code: int, printed: bool, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert argv[1:] == words("-m pyinfra -y inventories/oci.py operations.release.status --limit a,b")
        with open(env["TRITONHOST_STATUS"], "w", encoding="utf-8") as file:
            file.write('{"host": "b", "releases": []}\n{"host": "a", "releases": [{"role": "current"}]}\n')
        return subprocess.CompletedProcess(argv, code)

    monkeypatch.setattr(subprocess, "run", run)
    assert command.main(words("releases --json --limit a,b")) == code
    out = capsys.readouterr().out
    hosts = [{"host": "a", "releases": [{"role": "current"}]}, {"host": "b", "releases": []}]
    assert (json.loads(out) if out else None) == ({"hosts": hosts} if printed else None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ["--inventory", "inventories/oci.py"]),
        ("inventories/lab.py -k host", ["--inventory", "inventories/lab.py", "-k", "host"]),
        ("--inventory a.py --collect-only", ["--inventory", "a.py", "--collect-only"]),
        ("-khost", ["--inventory", "inventories/oci.py", "-khost"]),
    ],
)
def test_verify_gives_pytest_the_inventory(
    given: str, expected: list[str], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def noted(arguments: list[str], plugins: object) -> int:
        seen.append(arguments)
        return 0

    monkeypatch.setattr(pytest, "main", noted)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    assert command.main(["verify", *words(given)]) == 0
    tests = str(CHECKOUT / "tests" / "verify")
    assert seen[0][seen[0].index(tests) + 1 :] == expected
    assert seen[0][:2] == ["-c", str(CHECKOUT / "pyproject.toml")]


@pytest.mark.parametrize(
    ("code", "ctrl_c", "expected"), [(0, 0, 0), (1, 0, 1), (2, 0, 1), (2, 1, 130), (4, 0, 2), (5, 0, 5)]
)
def test_verify_ends_with_the_codes_of_the_command(
    code: int, ctrl_c: int, expected: int, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(arguments: list[str], plugins: list[Any]) -> int:
        if ctrl_c:
            plugins[0].pytest_keyboard_interrupt()
        return code

    monkeypatch.setattr(pytest, "main", main)
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    assert command.main(["verify"]) == expected


# --- completion


@pytest.mark.parametrize("shell", command.SHELLS)
def test_completion_script_names_command_and_variable(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_TRITONHOST_COMPLETE" in script and f"{shell}_complete" in script


def completed(text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the shell gets for a command line that ends where the cursor is."""
    typed = text.split(" ")
    monkeypatch.setenv("_TRITONHOST_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", text)
    monkeypatch.setenv("COMP_CWORD", str(len(typed) - 1))
    with pytest.raises(SystemExit):
        command.main([])
    return [line.removeprefix("plain,") for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tritonhost pl", ["plan"]),
        ("tritonhost completion ", list(command.SHELLS)),
        ("tritonhost init --model clip", ["clip-search"]),
        (
            "tritonhost plan ",
            ["profiles", "matrix", "check", "explain", "migrate", "schema", "models", "new"],
        ),
        ("tritonhost new --ki", ["--kind"]),
        ("tritonhost new --kind ", ["engine", "llmapi"]),
        ("tritonhost plan explain gpt", ["gpt2-medium"]),
        ("tritonhost plan explain gpt2-medium --gp", ["--gpu", "--gpus"]),
        ("tritonhost plan explain --release 25.05 my", ["my-model"]),
        ("tritonhost plan profiles --j", ["--json"]),
        ("tritonhost plan check ", ["file,"]),
        ("tritonhost bundle make ", ["inventories/oci.py"]),
        ("tritonhost bundle make --os ", ["8", "9"]),
        ("tritonhost currency --f", ["--from"]),
        ("tritonhost deploy ", ["inventories/oci.py"]),
        ("tritonhost verify --inv", ["--inventory"]),
        ("tritonhost verify --inventory ", ["inventories/oci.py"]),
    ],
)
def test_completion_offers_what_may_follow(
    text: str,
    expected: list[str],
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (made / "inventories/models/my-model.toml").write_text("", "utf-8")
    assert completed(text, monkeypatch, capsys) == expected


def test_completion_starts_without_the_code() -> None:
    """A key press that asks for the first word must not wait for pyinfra and pydantic."""
    code = (
        "import sys, tritonhost.command;"
        "print([m for m in ('operations', 'pyinfra', 'pydantic', 'gevent', 'pytest') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, each in command.command.commands.items():
        assert each.get_short_help_str(), name
        assert re.search(rf"(?m)^  {name} +\S", text), name


def test_inventories_are_files_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert completion.inventories("") == [completion.FILE]
    assert isinstance(command.command, click.Group)
