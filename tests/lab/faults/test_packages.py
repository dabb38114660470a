"""Packages of a host that serves: other versions of docker and the container toolkit, and the first ones again."""

from __future__ import annotations

import json
import shlex
import shutil
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.lab.e2e.one_host import Done, OneHost, difference_rows
from tests.lab.faults.conftest import ONCE_AFTER_ALL, Table
from tests.lab.rpm import docker, nvidia
from tests.lab.rpm.signing import SigningKey
from tests.lab.shell import run

TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
QUESTION = {"text_input": "What is machine learning?", "max_tokens": 24, "bad_words": "", "stop_words": ""}


@dataclass(frozen=True)
class Pins:
    """Versions as an inventory has them: the tool fills in `{os_major}`."""

    engine: str
    containerd: str
    toolkit: str

    @property
    def docker_packages(self) -> dict[str, str]:
        return {
            "docker-ce": f"3:{self.engine}-1.el{{os_major}}",
            "docker-ce-cli": f"1:{self.engine}-1.el{{os_major}}",
            "containerd.io": f"{self.containerd}-1.el{{os_major}}",
        }

    @property
    def toolkit_packages(self) -> dict[str, str]:
        return dict.fromkeys(TOOLKIT, f"{self.toolkit}-1")

    @property
    def options(self) -> list[str]:
        """pyinfra's options that override the inventory's versions with these."""
        return _data(
            {
                "docker_packages": self.docker_packages,
                "nvidia_container_toolkit_packages": self.toolkit_packages,
            }
        )

    def installed(self, os_major: int) -> dict[str, str]:
        """Name -> epoch:version-release, as rpm reports them."""
        pinned = {**self.docker_packages, **self.toolkit_packages}
        full = {name: pin.replace("{os_major}", str(os_major)) for name, pin in pinned.items()}
        return {name: pin if ":" in pin else f"0:{pin}" for name, pin in full.items()}


FIRST, SECOND = (
    Pins(*versions)
    for versions in zip(docker.ENGINE_VERSIONS, docker.CONTAINERD_VERSIONS, nvidia.VERSIONS, strict=True)
)


def test_upgrade_and_downgrade_keep_the_release_serving(converged: OneHost, table: Table) -> None:
    for wanted in (SECOND, FIRST):
        done = _followed(converged, wanted)
        # docker's own package restarts it, and the server with it
        assert "gives the golden answer" in done.output
    converged.verified()  # knows only the inventory's versions
    table.add("docker-ce, containerd.io and the toolkit upgraded, and back again", 2, 2)


def test_toolkit_upgrade_does_not_restart_the_container(converged: OneHost) -> None:
    before = _container(converged)
    for version in (SECOND.toolkit, FIRST.toolkit):
        wanted = replace(FIRST, toolkit=version)
        _followed(converged, wanted)
        assert _container(converged) == before


@pytest.mark.parametrize(
    "name", [pytest.param("docker-ce", marks=pytest.mark.smoke), "nvidia-container-toolkit"]
)
def test_pin_missing_from_every_repository_changes_nothing(
    converged: OneHost, table: Table, name: str
) -> None:
    before, answer = _state(converged), _answer(converged)
    epoch, release = ("3:", "1.el{os_major}") if name == "docker-ce" else ("", "1")
    missing = f"{epoch}99.0.0-{release}"
    # the packages that exist are not installed without the missing one
    pins = {**SECOND.docker_packages, **SECOND.toolkit_packages, name: missing}

    done = converged.deploy(
        *_data(
            {
                "docker_packages": {known: pins[known] for known in SECOND.docker_packages},
                "nvidia_container_toolkit_packages": {known: pins[known] for known in TOOLKIT},
            }
        )
    )

    assert done.code == 1, done.output
    spec = f"{name}-{missing.replace('{os_major}', str(converged.settings.os_major))}"
    # dnf's message, which may be printed when it comes and again at the end
    said = {line.rpartition("Error: ")[2] for line in done.output.splitlines() if "Unable to find" in line}
    assert said == {f"Unable to find a match: {spec}"}, done.output
    assert "Traceback" not in done.output
    assert _state(converged) == before
    assert _answer(converged) == answer
    assert converged.litter() == []
    assert "converged: release" in converged.converge().output
    table.add(f"pin of {name} that no repository holds: refused, untouched", 1, 1)


def test_version_published_after_the_last_refresh_is_found(converged: OneHost, tmp_path: Path) -> None:
    published = converged.settings.cache / "dnf" / "docker-ce" / f"el{converged.settings.os_major}"
    full, before, served = tmp_path / "full", tmp_path / "before", tmp_path / "served"
    shutil.copytree(published, full)
    shutil.copytree(published, before)
    for rpm in (*before.glob(f"*{SECOND.engine}*"), *before.glob(f"*{SECOND.containerd}*")):
        rpm.unlink()
    run("createrepo_c", "--quiet", before)
    with _web_server(converged.settings.gateway, tmp_path) as address:
        url = ["--data", f"docker_repository_url={address}/served/"]
        served.symlink_to(before)
        known = converged.deploy(*url)
        assert known.code == 0, known.output
        converged.root("dnf --quiet --refresh makecache")
        served.unlink()
        served.symlink_to(full)
        wanted = replace(SECOND, toolkit=FIRST.toolkit)
        done = converged.deploy(*url, *wanted.options)
        assert done.code == 0, done.output
        assert _installed(converged) == wanted.installed(converged.settings.os_major)


# taken as another program takes them: dnf's lock with dnf's code, rpm's as rpm does
DNF_HOLDS = (
    "import dnf.lock, time\n"
    "with dnf.lock.build_rpmdb_lock('/var/lib/dnf', True):\n"
    "    print('taken', flush=True); time.sleep({seconds})\n"
)
RPM_HOLDS = (
    "import fcntl, time\n"
    "file = open('/var/lib/rpm/.rpm.lock', 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX)\n"
    "print('taken', flush=True); time.sleep({seconds})\n"
)
HOLDERS = {"/var/lib/dnf/rpmdb_lock.pid": DNF_HOLDS, "/var/lib/rpm/.rpm.lock": RPM_HOLDS}


@pytest.mark.requirement("R12")
@pytest.mark.parametrize("lock", HOLDERS)
def test_package_lock_is_waited_for_and_its_holder_named(converged: OneHost, table: Table, lock: str) -> None:
    converged.root("rpm -e --nodeps git-lfs")
    with _holding(converged, lock, seconds=20) as pid:
        done = converged.deploy()
    assert done.code == 0, done.output
    told = [line for line in done.output.splitlines() if "waiting for" in line]
    assert told
    assert all(f"{lock} is held by pid {pid} (" in line for line in told), told
    assert "converged: release" in converged.converge().output
    table.add(f"{_owner(lock)}'s lock held for 20 s: waited for, its holder named", 1, 1)


@pytest.mark.requirement("R12")
@pytest.mark.parametrize("lock", HOLDERS)
def test_stuck_package_lock_ends_the_run_but_not_its_holder(
    converged: OneHost, table: Table, lock: str
) -> None:
    converged.root("rpm -e --nodeps git-lfs")
    before = _state(converged)
    with _holding(converged, lock, seconds=600) as pid:
        converged.root(f"kill -STOP {pid}")
        done = converged.deploy("--data", "package_lock_wait_s=4")
        assert done.code == 1, done.output
        said = [line for line in done.output.splitlines() if "package_lock_wait_s" in line]
        assert len([line for line in said if "refused" not in line]) == 1, done.output
        assert f"packages: {lock} is held by pid {pid} (" in said[-1]
        assert ", stopped)" in said[-1]
        assert "expected it to end within 4 s (package_lock_wait_s)" in said[-1]
        assert "Traceback" not in done.output
        assert converged.root(f"ps -o stat= -p {pid}").startswith("T")
        assert _state(converged) == before
    assert converged.litter() == []
    converged.converge()
    table.add(f"{_owner(lock)}'s lock kept by a stopped process: refused, its holder named and alive", 1, 1)


@pytest.mark.requirement("R12")
def test_stale_lock_file_with_a_reused_pid_is_diagnosed(converged: OneHost, table: Table) -> None:
    file = "/var/lib/dnf/rpmdb_lock.pid"
    converged.root("rpm -e --nodeps git-lfs; systemd-run --quiet --unit=bystander sleep 600")
    pid = converged.root("systemctl show --property=MainPID --value bystander")
    try:
        converged.root(f"printf {pid} >{file}; touch -d '1 hour ago' {file}")
        done = converged.deploy()
        assert done.code == 1, done.output
        assert f"packages: {file}: found pid {pid}, which is sleep and not the dnf" in done.output
        assert f"remove it: rm {file}" in done.output
        assert done.seconds < 60
        converged.root(f"rm {file}; kill -0 {pid}")
    finally:
        converged.root(f"systemctl stop bystander; rm -f {file}")
    converged.converge()
    table.add("lock file of a dnf that is gone, its number another program's: refused by name", 1, 1)


@pytest.mark.requirement("R13")
def test_packages_signed_by_another_key_are_refused(converged: OneHost, table: Table, tmp_path: Path) -> None:
    somebody = SigningKey(tmp_path / "keys", "somebody")
    somebody.create()
    dnf, os_major = converged.settings.cache / "dnf", converged.settings.os_major
    engines, toolkit = tmp_path / "engines", tmp_path / "toolkit"
    shutil.copytree(dnf / "docker-ce" / f"el{os_major}", engines)
    shutil.copytree(dnf / "nvidia-container-toolkit", toolkit)
    somebody.sign_packages([*engines.glob(f"*{SECOND.engine}*"), *engines.glob(f"*{SECOND.containerd}*")])
    run("createrepo_c", "--quiet", engines)
    somebody.sign_file(toolkit / "repodata" / "repomd.xml")
    somebody.release_agent()
    before = _state(converged)
    with _web_server(converged.settings.gateway, tmp_path) as address:
        for url, wanted, words in (
            # the packages
            (
                f"docker_repository_url={address}/engines/",
                replace(SECOND, toolkit=FIRST.toolkit),
                ("is not installed", "GPG"),
            ),
            # the repository's list of packages and of their checksums
            (
                f"nvidia_container_toolkit_repository_url={address}/toolkit/",
                replace(FIRST, toolkit=SECOND.toolkit),
                ("repomd.xml", "GPG"),
            ),
        ):
            done = converged.deploy("--data", url, *wanted.options)
            assert done.code == 1, done.output
            assert all(word in done.output for word in words), done.output
            assert _state(converged) == before
    converged.converge()
    assert _state(converged) == before
    table.add(
        "packages, and a repository's list, signed by another key: refused, untouched", 2, ONCE_AFTER_ALL
    )


@pytest.mark.requirement("R11")
def test_podman_is_removed_unless_its_containers_run(converged: OneHost, table: Table) -> None:
    converged.root(
        "rpm -i --nodeps $(dnf -q repoquery --location podman buildah runc | sort | grep -v runc-); "
        "echo web >/run/lab-podman-running"
    )
    before = _state(converged)
    done = converged.deploy()
    assert done.code == 1, done.output
    expected = (
        "packages: podman containers run on this host: web; expected none, because podman has to make room"
    )
    assert expected in done.output
    assert _state(converged) == before
    converged.root("rm /run/lab-podman-running")
    # conflicting packages are removed only if the pinned ones can be installed
    pins = {**FIRST.docker_packages, "docker-ce": "3:99.0.0-1.el{os_major}"}
    done = converged.deploy(*_data({"docker_packages": pins}))
    assert done.code == 1, done.output
    assert "found nothing that dnf could install in the place of buildah podman" in done.output
    assert "Unable to find a match: docker-ce-3:99.0.0" in done.output
    assert _state(converged) == before
    converged.converge()
    assert converged.root("rpm -q podman buildah runc || :").count("is not installed") == 3
    assert converged.root("dnf --quiet check") == ""
    # no newer docker, although the repository has one, and no package that conflicts with it
    before = _state(converged)
    converged.root("dnf --quiet --assumeyes --refresh update")
    assert _state(converged) == before
    assert "converged: release" in converged.converge().output
    table.add(
        "podman with a running container, or for a docker that is not there: refused; else removed, and dnf update "
        "changes nothing",
        3,
        2,
    )


def _owner(lock: str) -> str:
    return "dnf" if "dnf" in lock else "rpm"


@contextmanager
def _holding(site: OneHost, lock: str, seconds: int) -> Iterator[str]:
    """A program on the host that holds a lock for so many seconds while the block runs; its process id."""
    unit = "other-package-manager"
    program = HOLDERS[lock].format(seconds=seconds)
    script = f"systemd-run --quiet --collect --unit={unit} python3 -c {shlex.quote(program)}"
    site.root(
        f"{script}; until journalctl --quiet --unit={unit} --lines=1 | grep -q taken; do sleep 0.2; done"
    )
    try:
        yield site.root(f"systemctl show --property=MainPID --value {unit}")
    finally:
        site.try_root(f"systemctl kill --signal=CONT {unit}; systemctl stop {unit}")


@contextmanager
def _web_server(address: str, folder: Path) -> Iterator[str]:
    """Serve a folder's files over HTTP while the block runs."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((address, 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _followed(site: OneHost, wanted: Pins) -> Done:
    """Deploy, which must change only packages, and a second time, which must change nothing. Returns the first run."""
    release, answer = site.running_release(), _answer(site)
    done = site.deploy(*wanted.options)
    assert done.code == 0, done.output
    assert {row.split("  ")[0] for row in difference_rows(done.output)} == {"packages"}
    assert _installed(site) == wanted.installed(site.settings.os_major)
    assert site.root("dnf --quiet check") == ""
    assert site.running_release() == release
    assert _answer(site) == answer
    assert site.litter() == []
    before = _state(site)
    again = site.deploy(*wanted.options)
    assert again.code == 0, again.output
    assert f"converged: release {release}" in again.output
    assert "Starting operation" not in again.output
    assert _state(site) == before
    return done


def _data(settings: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--data", f"{key}={json.dumps(value)}")]


def _installed(site: OneHost) -> dict[str, str]:
    """Every installed version of the pinned packages; fails if one is installed twice or not at all."""
    names = " ".join(FIRST.installed(site.settings.os_major))
    listed = site.root(f"rpm -q --qf '%{{NAME}} %{{EPOCHNUM}}:%{{VERSION}}-%{{RELEASE}}\\n' {names}")
    found: dict[str, str] = {}
    for line in listed.splitlines():
        name, version = line.split(maxsplit=1)
        found[name] = f"{found[name]} and {version}" if name in found else version
    return found


def _container(site: OneHost) -> tuple[str, str]:
    """The running container, and since when it runs."""
    container = site.container()
    return container["Id"], container["State"]["StartedAt"]


def _state(site: OneHost) -> tuple[str, ...]:
    """The state that a run without changes keeps: the running container, and every package's installation time."""
    packages = site.root("rpm -qa --qf '%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE} %{INSTALLTIME}\\n' | sort")
    return (*_container(site), packages)


def _answer(site: OneHost) -> str:
    with site.http() as endpoint:
        request = urllib.request.Request(
            f"{endpoint}/v2/models/ensemble/generate", data=json.dumps(QUESTION).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = str(json.load(response)["text_output"])
    assert answer.strip(), "no answer"
    return answer
