"""The wheel: what is in it, and that its command does in a new project what the checkout does.

No host and no lab: hosts are unreachable. The virtual environment holds the wheel alone;
what it depends on comes from the environment that runs the tests.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import tritonhost
from tests.deploy.test_deploy import variables
from tests.deploy.test_inputs import DIGESTS
from tests.lab.settings import REPOSITORY
from tests.lab.shell import run

pytestmark = pytest.mark.lab

# Of a checkout, what a wheel never holds
OF_ONE_SITE = ("inventories/oci.toml", "inventories/oci_ssh_config")
CARRIED = ("operations/", "templates/", "files/", "tests/verify/")
UNREACHABLE = {"OCI_HOSTS": "gpu-1=127.0.0.1,gpu-2=127.0.0.2"}
LIMIT_S = 120  # of one program
ONCE = ("--data", "ssh_connect_retries=0")


@dataclass(frozen=True)
class Installed:
    """The wheel, and the environment that it is installed in."""

    wheel: Path
    environment: Path

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    @property
    def packages(self) -> Path:
        [found] = self.environment.glob("lib/python3*/site-packages")
        return found

    def command(self, cwd: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ended([str(self.environment / "bin" / "tritonhost"), *words], cwd, environment)

    def module(self, cwd: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ended([self.python, "-m", *words], cwd, environment)


def ended(argv: list[str], cwd: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A program's end. It never shows a traceback."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=variables(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def in_checkout(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in the checkout, which is not installed."""
    return ended([sys.executable, "-m", *words], REPOSITORY, environment)


def same(one: subprocess.CompletedProcess[str], other: subprocess.CompletedProcess[str]) -> None:
    """Two programs that ended alike: exit code and output, but for seconds.

    Hosts are worked on at once, so that the lines of a step come in any order of hosts.
    """

    def text(done: subprocess.CompletedProcess[str]) -> list[str]:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).splitlines()
        found: list[str] = []
        for of_hosts, together in itertools.groupby(lines, key=lambda line: line.startswith("    [")):
            step = list(together)
            found += sorted(step) if of_hosts else step
        return [re.sub(r"\d+\.\d+ ?s\b", "SECONDS", line) for line in found]

    assert text(one) == text(other)
    assert one.returncode == other.returncode


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A wheel of what git does not ignore, installed without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    source, wheels, environment = folder / "source", folder / "wheels", folder / "venv"
    names = run("git", "-C", REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, source / name)
    for name in (*OF_ONE_SITE, "files/host/__pycache__/left.pyc"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("# of one site\n", "utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, source)
    [wheel] = wheels.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    found = Installed(wheel, environment)
    (found.packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", "utf-8")
    run(*pip, "--python", found.python, "install", "--no-deps", "--no-index", wheel)
    return found


@pytest.fixture
def site(installed: Installed, tmp_path: Path) -> Path:
    """A new project."""
    done = installed.command(tmp_path, "init", "site")
    assert done.returncode == 0, done.stderr
    return tmp_path / "site"


@pytest.mark.smoke
def test_wheel_holds_the_tree_and_nothing_of_a_site(installed: Installed) -> None:
    names = {name for name in zipfile.ZipFile(installed.wheel).namelist() if not name.endswith("/")}
    listed = run(
        "git", "-C", REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard"
    ).splitlines()
    wanted = {name for name in listed if name.startswith(CARRIED) and (REPOSITORY / name).is_file()}
    carried = {
        name.removeprefix("tritonhost/_tree/") for name in names if name.startswith("tritonhost/_tree/")
    }
    assert wanted - carried == set()
    rest = {name for name in carried - wanted if not name.startswith("inventories/models/")}
    inventories = ("oci.py", "ssh_config", "group_data/all.py", "group_data/oci.py")
    assert rest == {
        *(f"inventories/{name}" for name in inventories),
        *("config.py", "deploy.py", "pyproject.toml", "tests/__init__.py", "tests/conftest.py"),
    }
    tops = {name.split("/")[0] for name in names}
    assert tops == {"tritonhost", f"tritonhost-{tritonhost.__version__}.dist-info"}


@pytest.mark.smoke
def test_site_packages_get_no_common_name(installed: Installed) -> None:
    found = {path.name for path in installed.packages.iterdir()}
    assert found == {"tritonhost", f"tritonhost-{tritonhost.__version__}.dist-info", "dependencies.pth"}
    for name in ("operations", "files", "templates", "tests", "inventories", "deploy", "config"):
        code = f"import importlib.util; raise SystemExit(importlib.util.find_spec({name!r}) is not None)"
        assert ended([installed.python, "-c", code], installed.environment, {}).returncode == 0, name


@pytest.mark.smoke
def test_command_says_its_version(installed: Installed, tmp_path: Path) -> None:
    done = installed.command(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"tritonhost {tritonhost.__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        ["profiles"],
        ["explain", "gpt2-medium"],
        ["explain", "clip-search", "--json"],
        ["explain", "gpt2-mediun"],
        ["check", "inventories/models/gpt2-medium.toml"],
        ["check", "absent.toml"],
    ],
    ids=" ".join,
)
def test_plan_is_that_of_the_checkout(installed: Installed, site: Path, words: list[str]) -> None:
    there = in_checkout("operations.plan", *words)
    same(installed.command(site, "plan", *words), there)
    if words == ["profiles"]:
        same(installed.module(site, "operations.plan", *words), there)
        assert "gpt2-medium" in there.stdout


def test_own_model_is_found_first(installed: Installed, site: Path) -> None:
    models = site / "inventories" / "models"
    text = (models / "gpt2-medium.toml").read_text("utf-8")
    (models / "mine.toml").write_text(text.replace("on one GPU", "of this site", 1), "utf-8")
    (models / "gpt2-medium.toml").write_text(text.replace("on one GPU", "changed here"), "utf-8")
    lines = installed.command(site, "plan", "profiles").stdout.splitlines()
    assert "gpt2-medium          gpt2-medium changed here" in lines
    assert any(line.startswith("mine ") for line in lines)
    assert any(line.startswith("mixtral-8x7b ") for line in lines)
    done = installed.command(
        site, "preflight", "--json", *ONCE, "--data", "model=mine", OCI_HOSTS="gpu-1=127.0.0.1"
    )
    assert done.returncode == 5, done.stderr


@pytest.mark.smoke
def test_deploy_to_unreachable_hosts_ends_as_in_the_checkout(
    installed: Installed, site: Path, tmp_path: Path
) -> None:
    # a missing digest is refused before a connection
    (tmp_path / "digests").mkdir()
    (tmp_path / "digests/all.py").write_text(f"image_digests = {DIGESTS!r}\n", "utf-8")
    given = ["--dry", "-y", *ONCE, "--group-data", str(tmp_path / "digests")]
    words = ["inventories/oci.py", "deploy.py", *given]
    there = in_checkout("pyinfra", *words, **UNREACHABLE)
    assert there.returncode == 1 and "gpu-2" in there.stderr
    same(installed.command(site, "deploy", *given, **UNREACHABLE), there)
    same(installed.module(site, "pyinfra", *words, **UNREACHABLE), there)


def test_hosts_that_are_missing_are_one_line(installed: Installed, site: Path) -> None:
    for done in (
        installed.command(site, "deploy", "--dry", "-y"),
        installed.command(site, "preflight"),
        installed.command(
            site, "bundle", "make", "inventories/oci.py", "--output", "out", "--url", "http://a:1"
        ),
    ):
        [line] = [line for line in done.stderr.splitlines() if not line.startswith("--> Loading ")]
        assert line.startswith("tritonhost: inventories/oci.toml: found no hosts, expected at least one host")
        assert done.returncode == 2


def test_preflight_of_unreachable_hosts_ends_as_in_the_checkout(installed: Installed, site: Path) -> None:
    there = in_checkout("operations.preflight", "inventories/oci.py", "--json", *ONCE, **UNREACHABLE)
    here = installed.command(site, "preflight", "--json", *ONCE, **UNREACHABLE)
    assert here.returncode == there.returncode == 5
    problems = [
        {name: (host["status"], host["problem"]) for name, host in json.loads(done.stdout)["hosts"].items()}
        for done in (here, there)
    ]
    assert problems[0] == problems[1] and set(problems[0]) == {"gpu-1", "gpu-2"}


@pytest.mark.smoke
def test_verify_collects_the_tests_of_the_checkout(installed: Installed, site: Path) -> None:
    words = ("--inventory", "inventories/oci.py", "--collect-only", "-q")
    there = in_checkout("pytest", "tests/verify", "-p", "no:cacheprovider", *words, **UNREACHABLE)
    here = installed.command(site, "verify", "--collect-only", "-q", **UNREACHABLE)
    tests = [[line for line in done.stdout.splitlines() if "::" in line] for done in (here, there)]
    assert tests[0] == tests[1] and any("gpu-2" in test for test in tests[0]), here.stdout + here.stderr
    assert here.returncode == there.returncode == 0
    assert not list(installed.packages.rglob("*-pytest-*.pyc")), "in site-packages"
    refused = installed.command(site, "verify", "--inventory", "inventories/none.py")
    assert refused.returncode == 2
    assert "--inventory inventories/none.py: " in refused.stderr


def test_status_has_a_row_for_a_host_that_did_not_answer(installed: Installed, site: Path) -> None:
    done = installed.command(site, "status", "--json", *ONCE, **UNREACHABLE)
    assert done.returncode == 1
    hosts = json.loads(done.stdout)["hosts"]
    assert [(host["name"], host["state"], host["differences"]) for host in hosts] == [
        ("gpu-1", "unreachable", None),
        ("gpu-2", "unreachable", None),
    ]


def test_report_is_written_of_hosts_that_did_not_answer(installed: Installed, site: Path) -> None:
    done = installed.command(site, "report", "--output", "build/report.html", *ONCE, **UNREACHABLE)
    assert done.returncode == 1
    assert done.stdout.endswith("2 unreachable\nwritten: build/report.html\n")
    html = (site / "build" / "report.html").read_text("utf-8")
    assert ">gpu-1</bdi>" in html and ">gpu-2</bdi>" in html


def test_releases_name_no_host_that_did_not_answer(installed: Installed, site: Path) -> None:
    done = installed.command(site, "releases", "--json", *ONCE, **UNREACHABLE)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout) == {"hosts": []}
    plain = installed.module(
        site, "pyinfra", "-y", "inventories/oci.py", "operations.release.status", *ONCE, **UNREACHABLE
    )
    assert plain.returncode == 1
    assert "No such module" not in plain.stdout + plain.stderr
