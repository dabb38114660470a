"""A bare host: `--dry` lists the changes and writes nothing, one deploy makes it serve, and verification passes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.machine.packages import RECORD
from tests.lab.e2e.one_host import DATA_ROOT, INVENTORY, PYINFRA, Done, OneHost, difference_rows

# Written by the host, not by the tool: journal and login records, timers' stamps, the package database's lock files.
NOISE = (
    "/var/lib/systemd",
    "/var/lib/dbus",
    "/var/lib/private",
    "/var/lib/rpm",
    "/var/lib/dnf",
    "/usr/lib/sysimage/rpm",
)


# Files below /etc that belong to no package: accounts and caches written by packages' scripts, git-lfs' filters, docker's
# key and its zone of firewalld, and the links of enabled units
SCRIPTS_WRITE = re.compile(
    r"/etc/(group|gshadow|passwd|shadow|subgid|subuid)-?|/etc/ld\.so\.cache|/etc/\.updated|/etc/\.pwd\.lock"
    r"|/etc/gitconfig|/etc/docker/key\.json|/etc/firewalld/zones/docker\.xml"
    r"|/etc/systemd/system/[\w.@-]+\.(wants|requires)(/.*)?"
)
KEYS = ("source", "weights", "checkpoint", "engine")


@dataclass(frozen=True)
class Look:
    """A `--dry` run on the bare host: its output, and the host's state before and after it."""

    done: Done
    before: list[str]
    after: list[str]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The cells "stage" and "what" of each row of its table."""
        cells = [re.split(r" {2,}", row) for row in difference_rows(self.done.output)]
        return [(cell[0], cell[1]) for cell in cells]

    def named(self, stage: str) -> set[str]:
        return {what for found, what in self.rows if found == stage}


@pytest.fixture(scope="module")
def look(bare: OneHost) -> Look:
    before = _everything(bare)
    done = bare.run(*PYINFRA, INVENTORY, "deploy.py", "--dry", kind="look")
    return Look(done, before, _everything(bare))


@pytest.mark.requirement("R07")
@pytest.mark.smoke
def test_dry_run_of_a_bare_host_writes_nothing(look: Look) -> None:
    assert look.done.code == 0, look.done.output
    assert len(look.before) > 1000
    assert look.after == look.before
    stages = {stage for stage, _ in look.rows}
    assert stages >= {
        "packages",
        "container runtime",
        "serving image",
        "weights",
        "engine",
        "release",
        "service",
    }


@pytest.mark.smoke
def test_deploy_changes_what_the_dry_run_named(bare: OneHost, look: Look) -> None:
    etc, packages, units = _etc(bare), _packages(bare), _enabled(bare)
    done = bare.converge()
    assert difference_rows(done.output) == difference_rows(look.done.output)

    # files
    changed = {line.split("\t")[0] for line in _etc(bare) ^ etc}
    files = {what for _, what in look.rows if what.startswith("/etc/")} | {"/etc/docker/daemon.json"}
    assert files - changed == set(), "named, and not changed"
    # the host's record is written of what a run changes, and is no change that a run is made for
    changed = {path for path in changed if not path.startswith(f"{RECORD}/")}
    unnamed = sorted(path for path in changed - files if not SCRIPTS_WRITE.fullmatch(path))
    ours = [path for path in unnamed if bare.try_root(f"rpm -qf {path}")[0] != 0]
    assert ours == [], "changed, and not named"

    # packages: the named ones come with their dependencies, and no other package is removed
    installed = _packages(bare)
    named = {what for what in look.named("packages") if not what.startswith("/")}
    assert named - {name for name, _ in installed ^ packages} == set()
    assert {name for name, _ in packages} - {name for name, _ in installed} <= named

    # artifacts, the image and the release
    for kind in KEYS:
        assert set(bare.root(f"ls {DATA_ROOT}/{DIRECTORIES[kind]}").split()) == look.named(kind), kind
    assert set(bare.root("docker image ls --format 'image {{.Tag}}' tritonhost/serving").splitlines()) == (
        look.named("serving image")
    )
    releases = bare.root(f"ls {DATA_ROOT}/releases").split()
    assert {f"release {release}" for release in releases} == look.named("model repository")

    # units
    enabled = {what for _, what in look.rows if what.endswith(".service") and "/" not in what}
    started = _enabled(bare) - units
    assert enabled <= started
    assert [
        unit
        for unit in started - enabled
        if bare.try_root(f"rpm -qf $(systemctl show -P FragmentPath {unit})")[0]
    ] == []
    assert difference_rows(bare.deploy("--dry").output) == []


@pytest.mark.smoke
def test_deployed_host_is_verified(bare: OneHost) -> None:
    bare.converge()
    bare.verified()
    assert bare.litter() == []


def _etc(site: OneHost) -> set[str]:
    """Every file and link of /etc with its kind, mode, owner, size and time."""
    listed = site.root("find /etc ! -type d -printf '%p\\t%y %m %U:%G %s %l %T@\\n'")
    return set(listed.splitlines())


def _packages(site: OneHost) -> set[tuple[str, str]]:
    """Every package and its version."""
    listed = site.root("rpm -qa --qf '%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\\n'").splitlines()
    return {(line.split()[0], line.split()[1]) for line in listed if not line.startswith("gpg-pubkey ")}


def _enabled(site: OneHost) -> set[str]:
    return set(
        site.root("systemctl list-unit-files --state=enabled --no-legend --plain | cut -d' ' -f1").split()
    )


def _everything(site: OneHost) -> list[str]:
    pruned = " -o ".join(f"-path {path}" for path in NOISE)
    return site.root(
        f"find /etc /var/lib /usr /root /run/tritonhost /home \\( {pruned} \\) -prune -o "
        "-printf '%p %s %T@ %m %u\\n' 2>/dev/null | sort"
    ).splitlines()
