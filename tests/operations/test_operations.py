"""Operations whose commands are long scripts, or whose facts are no plain data: what is decided, not the script's text."""

import base64
import hashlib
import io
import json
import shlex
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand

from operations import etc_files, storage
from operations import release as release_operations
from operations.artifacts import artifact, image, obtained
from operations.container_runtime import configured
from operations.facts.artifacts import Artifact, ArtifactState, ImageId
from operations.facts.disks import LocalStorage, RootDisk
from operations.facts.docker import Daemon, DaemonConfiguration
from operations.facts.host_state import HostState
from operations.facts.packages import (
    InstalledLike,
    InstalledVersions,
    Keys,
    RemoteText,
    TrustedKeys,
    VersionLocks,
)
from operations.facts.provenance import Provenance
from operations.facts.releases import ReleaseDocuments, ReleaseFiles, ReleaseLinks, TemplateFiles
from operations.model_repository import laid_out
from operations.packages import absent, pinned, trusted_key
from operations.plan.audit.provenance import Found, Image
from operations.plan.catalog.package_names import CONFLICTING_PACKAGES, OTHER_ENGINES
from operations.plan.machine.packages import GO_ALONG, INSTALL, install
from operations.plan.machine.version_locks import with_locks
from operations.plan.observed.observed import BlockDevice, DataRoot, LocalDisks, RootFileSystem, Signature
from operations.release import bill_of_materials, switch_script
from operations.remote import detached
from operations.remote.detached import run_and_follow
from operations.remote.refusal import _refuse
from operations.storage import local_disks_mounted, root_grown
from operations.swap import _Swap, serving
from tests.operations.harness import Host, commands_of, refusal_of, text_of
from tests.unit.builders import DATA, converged, release, settings
from tests.unit.keys_for_tests import ED25519, ED25519_FINGERPRINT, RSA, RSA_FINGERPRINT

WANTED = release()
GIB = 2**30
ENGINE, CHECKPOINT = WANTED.artifact("engine"), WANTED.artifact("checkpoint")


# --- storage


@pytest.mark.parametrize(
    "root",
    [
        RootFileSystem("", "", 0, 0),
        RootFileSystem("/dev/sda3", "xfs", 5, 0),
        RootFileSystem("/dev/sda3", "xfs", 96, 100),
    ],
)
def test_root_that_covers_its_disk_is_not_grown(root: RootFileSystem) -> None:
    host = Host({RootDisk: root})
    assert commands_of(root_grown, host) == []
    assert host.noop_description == "the root file system covers its disk"


SMALL = RootFileSystem(
    "/dev/sda3", "xfs", 36 * GIB, 100 * GIB, 37 * GIB, ("part", "disk"), "sda", "sda3", "3", 60 * GIB
)


def test_small_root_is_grown_layer_by_layer_and_checked() -> None:
    command, check = commands_of(root_grown, Host({RootDisk: SMALL}))
    assert text_of(command).startswith(
        "STEPS='partition\nfile system'\nDISK=sda\nNUMBER=3\nVOLUME=''\nSOURCE=/dev/sda3\nTYPE=xfs\n"
    )
    # it says that it succeeded where it did not
    assert "/oci-growfs -y" not in text_of(command)
    assert command.connector_arguments == {"_timeout": 600}
    assert isinstance(check, FunctionCommand)


@pytest.mark.parametrize(
    ("printed", "ok", "said"),
    [
        (["/dev/sda3 xfs 96", "sda3 part 97", "sda disk 100"], True, ""),
        (
            ["/dev/sda3 xfs 36", "sda3 part 97", "sda disk 100"],
            True,
            "found file system left to grow on /dev/sda3",
        ),
        (["/dev/sda3 btrfs 36", "sda3 part 97", "sda disk 100"], True, "found btrfs on /dev/sda3"),
        ([], True, "found nothing that could be read left to grow on /"),
        (["/dev/sda3 xfs 96", "sda3 part 97", "sda disk 100"], False, "found nothing that could be read"),
    ],
)
def test_growth_is_checked_by_size_and_not_by_exit_code(
    monkeypatch: pytest.MonkeyPatch, printed: list[str], ok: bool, said: str
) -> None:
    monkeypatch.setattr(storage, "shell", lambda host, script: (ok, printed))
    shown: list[str] = []
    monkeypatch.setattr(storage.logger, "error", shown.append)
    host: Any = Host({})
    state: Any = None
    assert storage._covers(state, host) is not bool(said)
    assert said in "".join(shown)


def test_unsupported_root_file_system_is_refused() -> None:
    host = Host({RootDisk: replace(SMALL, type="btrfs")})
    assert refusal_of(commands_of(root_grown, host)).startswith("root file system: found btrfs on /dev/sda3")


DISKS = tuple(BlockDevice(name, "disk") for name in ("nvme0n1", "nvme1n1"))
PLACE = DataRoot("directory", "/var/lib/tritonhost", "/", "/dev/sda3", "xfs", ("rw",))


def test_local_disks_are_set_up_for_the_data_root() -> None:
    host = Host({LocalStorage: (PLACE, LocalDisks(DISKS, {"nvme0n1": (), "nvme1n1": ()}))})
    [command] = commands_of(local_disks_mounted, host, settings=settings(local_disks="raid0"))
    text = text_of(command)
    assert text.startswith(
        "STEPS='create\nfile system\nmount\nmark'\nLEVEL=raid0\nDISKS='nvme0n1\nnvme1n1'\nDEVICE=''\n"
        "LABEL=tritonhost\nARRAY=/dev/md/tritonhost\nARRAY_FILE=/etc/mdadm.conf.d/tritonhost.conf\n"
        "UNFINISHED=/etc/mdadm.conf.d/tritonhost.unfinished\nERASE=0\n"
        "DATA_ROOT=/var/lib/tritonhost\nSENTINEL=.tritonhost-data\nUNIT=var-lib-tritonhost.mount\n"
    )
    assert "What=/dev/disk/by-uuid/@UUID@\nWhere=/var/lib/tritonhost\nType=xfs\n" in text
    assert "nofail" not in text.split("[Unit]")[1].split("[Install]")[0]
    assert "mkfs.xfs -f" not in text and "--force" not in text
    assert host.asked == [("LocalStorage", {"path": "/var/lib/tritonhost"})]


def test_disk_with_foreign_data_is_refused() -> None:
    taken = {"nvme0n1": (), "nvme1n1": (Signature("ext4", "mine"),)}
    host = Host({LocalStorage: (PLACE, LocalDisks(DISKS, taken))})
    message = refusal_of(commands_of(local_disks_mounted, host, settings=settings(local_disks="raid0")))
    assert message.startswith(
        "local_disks: /dev/nvme1n1: found ext4 mine, expected a disk that carries nothing"
    )


def test_unsigned_local_disks_are_erased_only_with_the_setting() -> None:
    written = LocalDisks(DISKS, {"nvme0n1": (), "nvme1n1": ()}, written=frozenset({"nvme1n1"}))
    host = Host({LocalStorage: (PLACE, written)})
    raid0 = settings(local_disks="raid0")
    assert "set local_disks_erase = True" in refusal_of(
        commands_of(local_disks_mounted, host, settings=raid0)
    )
    erased = settings(local_disks="raid0", local_disks_erase=True)
    [command] = commands_of(local_disks_mounted, host, settings=erased)
    assert "\nERASE=1\n" in text_of(command)


def test_mounted_local_disks_are_not_changed() -> None:
    place = replace(PLACE, mount=PLACE.resolved, source="/dev/nvme0n1", entries=True, marked=True)
    disk = BlockDevice("nvme0n1", "disk", mounts=(PLACE.resolved,))
    unit = {"What": "/dev/disk/by-uuid/u", "UnitFileState": "enabled"}
    host = Host(
        {
            LocalStorage: (
                place,
                LocalDisks((disk,), {"nvme0n1": (Signature("xfs", "tritonhost", "u"),)}, unit),
            )
        }
    )
    assert commands_of(local_disks_mounted, host, settings=settings(local_disks="raid0")) == []
    assert host.noop_description == "the local disks are mounted at /var/lib/tritonhost"


# --- packages


def test_conflicting_packages_are_removed_by_exact_name() -> None:
    host = Host({InstalledVersions: {"runc": ("4:1.2-1",), "buildah": ("2:1.4-1",)}})
    given = {"instead": {"docker-ce": "3:29", "git": None}, "options": ("--disablerepo=*",)}
    [found] = commands_of(absent, host, packages=("podman", "buildah", "runc"), lock_wait_s=7, **given)
    [work] = found.args
    place = f"/run/tritonhost/{work.unit}"
    assert work.body() == (
        f"make_it() {{\nsh {place}/record_packages.sh /etc/tritonhost sh {place}/remove_packages.sh {place}/run_unlocked.sh 7 {','.join(GO_ALONG)} {place}/instead "
        "buildah runc\n}\n"
    )
    assert set(work.files) == {"remove_packages.sh", "run_unlocked.sh", "record_packages.sh", "instead"}
    asked = work.files["instead"].split()
    assert asked[:2] == ["dnf", "install"]
    assert asked[-3:] == ["--disablerepo=*", "docker-ce-3:29", "git"]
    assert "--assumeno" in asked
    assert "--assumeyes" not in asked
    # a run that finds it half done takes it up
    assert work.unit in WANTED.units
    assert host.asked == [("InstalledVersions", {"names": ["podman", "buildah", "runc"]})]


def test_other_container_engine_is_refused_by_name() -> None:
    host = Host({InstalledLike: ["containerd", "moby-engine"], InstalledVersions: {"runc": ("4:1.2-1",)}})
    said = refusal_of(
        commands_of(
            absent,
            host,
            packages=CONFLICTING_PACKAGES,
            lock_wait_s=600,
            instead={"docker-ce": None},
            refused=OTHER_ENGINES,
        )
    )
    assert said.startswith(
        "packages: found containerd, moby-engine, expected no container engine beside docker-ce"
    )
    assert "nothing was changed" in said


def test_artifact_and_image_facts_ignore_tool_warnings() -> None:
    odd = "WARNING: something that no tool of today says"
    manifest = '{"kind": "weights", "key": "k", "inputs": {}, "files": {}}'
    assert ArtifactState().process([odd, manifest]).complete
    assert not ArtifactState().process([odd]).complete
    assert ReleaseFiles().process([odd, manifest]).complete
    assert ReleaseFiles().process([odd]) == Artifact(False, "unreadable manifest")
    assert ImageId().process([odd, "sha256:00ff "]) == "sha256:00ff"
    assert ImageId().process([odd]) == ""


def test_rpm_warning_is_not_a_package() -> None:
    said = [
        "warning: Found NDB Packages.db database while attempting bdb backend",
        "moby-engine",
        "moby-engine",
    ]
    assert InstalledLike().process(said) == ["moby-engine"]
    assert InstalledLike().command(["moby-*"]) == "rpm -qa --qf '%{NAME}\\n' 'moby-*'"


KEY = {
    "url": "https://mirror.invalid/gpg",
    "fingerprint": RSA_FINGERPRINT,
    "path": "/etc/pki/rpm-gpg/KEY",
    "lock_wait_s": 7,
}
SHORT = RSA_FINGERPRINT[-8:].lower()


def test_a_key_that_is_trusted_is_not_fetched_again() -> None:
    host = Host({TrustedKeys: Keys(RSA, frozenset({SHORT}))})
    assert commands_of(trusted_key, host, **KEY) == []
    assert host.noop_description == "the key is trusted"
    assert [name for name, _ in host.asked] == ["TrustedKeys"]


@pytest.mark.parametrize(
    "trusted",
    [
        Keys("", frozenset()),
        Keys(RSA, frozenset()),
        Keys("", frozenset({SHORT})),
        Keys(ED25519, frozenset({SHORT})),
        Keys(RSA + ED25519, frozenset({SHORT})),
        Keys(RSA + ED25519.replace("mDMEawEf6RYJ", "mDMEaw!f6RYJ"), frozenset({SHORT})),
        Keys(f"# {RSA}", frozenset({SHORT})),
    ],
    ids=[
        *("nothing", "a file rpm does not trust", "trusted without a file", "another file", "a second key"),
        *("a key that cannot be read", "more than the key"),
    ],
)
def test_key_with_expected_fingerprint_is_written_and_trusted(trusted: Keys) -> None:
    write, trust = commands_of(trusted_key, Host({TrustedKeys: trusted, RemoteText: RSA}), **KEY)
    assert text_of(write).startswith("install -D -m 644 /dev/stdin /etc/pki/rpm-gpg/.KEY.new")
    assert write.connector_arguments == {"_stdin": RSA}
    [work] = trust.args
    assert work.body().endswith("/run_unlocked.sh 7 rpm --import /etc/pki/rpm-gpg/KEY\n}\n")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no OpenPGP key"),
        ("<html>", "no OpenPGP key but an HTML page, as of a login or a proxy"),
        (ED25519, ED25519_FINGERPRINT),
    ],
)
def test_key_with_another_fingerprint_is_refused(text: str, found: str) -> None:
    host = Host({TrustedKeys: Keys("", frozenset()), RemoteText: text})
    message = refusal_of(commands_of(trusted_key, host, **KEY))
    assert message == (
        f"package key https://mirror.invalid/gpg: found {found}, expected {RSA_FINGERPRINT} alone; "
        "check *_gpg_fingerprint"
    )


def test_unfetchable_key_is_refused_with_curl_s_message() -> None:
    text = (
        "curl: (60) SSL certificate problem: self-signed certificate\nMore details here: https://curl.se/docs"
    )
    message = refusal_of(
        commands_of(trusted_key, Host({TrustedKeys: Keys("", frozenset()), RemoteText: text}), **KEY)
    )
    assert message.startswith(
        "package key https://mirror.invalid/gpg: found curl: (60) SSL certificate problem"
    )
    assert "expected the key; correct the address" in message


def test_trusted_key_writes_exactly_the_verified_key() -> None:
    text = f"<html>{RSA.replace('BLOCK-----', 'BLOCK-----' + chr(10) + 'Version: 1', 1)}</html>"
    write, _ = commands_of(trusted_key, Host({TrustedKeys: Keys("", frozenset()), RemoteText: text}), **KEY)
    assert write.connector_arguments == {"_stdin": RSA}


def test_trusted_key_refuses_a_key_hidden_by_white_space() -> None:
    hidden = ED25519.replace("mDMEawEf6RYJ", "mDMEawEf 6RYJ")
    host = Host({TrustedKeys: Keys("", frozenset()), RemoteText: RSA + hidden})
    assert ED25519_FINGERPRINT in refusal_of(commands_of(trusted_key, host, **KEY))


def test_a_key_file_with_a_second_key_is_refused() -> None:
    # rpm --import would trust every key of the file
    host = Host({TrustedKeys: Keys("", frozenset()), RemoteText: RSA + ED25519})
    assert ED25519_FINGERPRINT in refusal_of(commands_of(trusted_key, host, **KEY))


@pytest.mark.parametrize(
    ("output", "keys"),
    [
        (
            ["trusted 621e9f35", "trusted F796ECB0", "-----BEGIN", "-----END"],
            Keys("-----BEGIN\n-----END", frozenset({"621e9f35", "f796ecb0"})),
        ),
        ([], Keys("", frozenset())),
    ],
)
def test_trusted_keys_fact_reads_rpm_and_the_file(output: list[str], keys: Keys) -> None:
    fact = TrustedKeys()
    assert fact.process(output) == keys
    assert fact.command(path="/etc/pki/a b").endswith("! test -e '/etc/pki/a b' || cat '/etc/pki/a b'")


# --- container runtime

RUNTIME = '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}, "a": 1}'


@pytest.mark.parametrize("settings", [{}, {"a": 1}])
def test_equivalent_daemon_json_is_not_changed(settings: dict[str, Any]) -> None:
    host = Host({DaemonConfiguration: Daemon(RUNTIME, True, True)})
    assert commands_of(configured, host, settings=settings, start_timeout_s=60) == []
    assert host.noop_description


@pytest.mark.parametrize(
    ("daemon", "settings"),
    [
        (Daemon("", True, True), {}),
        (Daemon('{"a": 1}', True, True), {"a": 1}),
        (Daemon(RUNTIME, True, True), {"a": 2}),
        # written, but docker was not restarted: the run before was killed
        (Daemon(RUNTIME, False, True), {"a": 1}),
        # started where what it says of a failure is read
        (Daemon(RUNTIME, True, False), {"a": 1}),
    ],
)
def test_daemon_json_and_docker_restart_are_one_command(daemon: Daemon, settings: dict[str, Any]) -> None:
    host = Host({DaemonConfiguration: daemon})
    [command] = commands_of(configured, host, settings=settings, start_timeout_s=60)
    assert "nvidia-ctk runtime configure" in text_of(command)
    assert "systemctl restart docker.service" in text_of(command)
    written = json.loads(command.connector_arguments["_stdin"])
    assert written == {**json.loads(daemon.text or "{}"), **settings}


def test_malformed_daemon_json_is_refused_and_unchanged() -> None:
    host = Host({DaemonConfiguration: Daemon('{"a": 1,}', True, True)})
    message = refusal_of(commands_of(configured, host, settings={}, start_timeout_s=60))
    assert message.startswith("/etc/docker/daemon.json: found ")
    assert message.endswith("the file was left as it is")


# --- artifacts


def test_release_files_are_compared_by_their_digests(tmp_path: Path) -> None:
    entry = {"size": 1, "mtime": 1, "sha256": hashlib.sha256(b"a").hexdigest()}
    manifest = {"kind": "release", "key": "k", "inputs": {}, "files": {"a": entry, "b": entry}}
    (tmp_path / "manifest.json").write_text(f"{json.dumps(manifest)}\n", "utf-8")
    for name, text in (("a", "a"), ("b", "b"), ("c", "c")):
        (tmp_path / name).write_text(text, "utf-8")
    fact = ReleaseFiles()

    def found() -> Artifact:
        done = subprocess.run(["sh", "-c", fact.command(str(tmp_path))], capture_output=True, text=True)
        return fact.process(done.stdout.splitlines())

    assert found() == Artifact(False, "changed: b, c")
    (tmp_path / "b").write_text("a", "utf-8")
    (tmp_path / "c").unlink()
    assert found() == Artifact(True, "")


COMPLETE, ABSENT = Artifact(True, ""), Artifact(False, "absent")


def test_complete_artifact_is_not_rebuilt() -> None:
    host = Host({ArtifactState: COMPLETE})
    assert commands_of(artifact, host, wanted=WANTED.artifact("weights")) == []
    assert host.noop_description == f"weights {WANTED.artifact('weights').key} is complete"
    assert host.asked == [("ArtifactState", {"path": WANTED.artifact("weights").path})]


def test_missing_artifact_is_built_by_its_unit() -> None:
    [command] = commands_of(artifact, Host({ArtifactState: ABSENT}), wanted=WANTED.artifact("weights"))
    assert isinstance(command, FunctionCommand)
    assert (command.function, command.args) == (obtained, (WANTED.artifact("weights"), None))


def test_complete_engine_needs_no_checkpoint() -> None:
    host = Host({ArtifactState: COMPLETE})
    assert commands_of(artifact, host, wanted=CHECKPOINT, unless=ENGINE) == []
    assert "is complete without it" in host.noop_description
    assert host.asked == [("ArtifactState", {"path": ENGINE.path})]


def test_missing_engine_needs_its_checkpoint() -> None:
    host = Host({ArtifactState: ABSENT})
    [command] = commands_of(artifact, host, wanted=CHECKPOINT, unless=ENGINE)
    assert command.args == (CHECKPOINT, ENGINE)


@pytest.mark.parametrize(("found", "count"), [("sha256:0", 0), ("", 1)])
def test_image_is_built_only_when_its_tag_is_missing(found: str, count: int) -> None:
    commands = commands_of(image, Host({ImageId: found}), wanted=WANTED.image)
    assert [command.args for command in commands] == [(WANTED.image,)] * count


class Shell:
    """A connected host whose commands are answered from a list."""

    name, print_prefix = "host", ""

    def __init__(self, *answers: tuple[bool, list[str]]) -> None:
        self.answers = list(answers)
        self.scripts: list[str] = []
        self.stdin: list[str | None] = []
        self.data: dict[str, object] = {"_sudo": True}

    def run_shell_command(self, command: Any, **arguments: Any) -> tuple[bool, list[Any]]:
        self.scripts.append(text_of(command))
        self.stdin.append(arguments["_stdin"])
        assert arguments["_sudo"] is True
        if not self.answers:
            raise TimeoutError("no answer")
        ok, lines = self.answers.pop(0)
        return ok, [type("Line", (), {"line": line})() for line in lines]


STARTED = (True, ["cursor: c0", "started"])
BUSY = (
    True,
    [
        "building",
        "-- cursor: c1",
        "state: ActiveState=active SubState=running Result=success ExecMainStatus=0",
    ],
)
DONE = (
    True,
    ["done", "-- cursor: c2", "state: ActiveState=inactive SubState=dead Result=success ExecMainStatus=0"],
)
FAILED = (
    True,
    ["no", "-- cursor: c2", "state: ActiveState=failed SubState=failed Result=exit-code ExecMainStatus=65"],
)

KILLED = (True, ["no", "-- cursor: c2", FAILED[1][2].replace("=65", "=137")])
UNMATCHED = (True, ["Error: Unable to find a match: zip-9", *KILLED[1][1:]])


def run(shell: Shell, work: Any = ENGINE) -> bool:
    return run_and_follow(None, shell, work)  # type: ignore[arg-type]


def test_work_is_started_and_followed_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    shell = Shell(STARTED, BUSY, DONE, THERE)
    with caplog.at_level("INFO", "pyinfra"):
        assert run(shell)
    first = [script.splitlines()[0] for script in shell.scripts]
    assert first == [*[f"UNIT={ENGINE.unit}"] * 3, ENGINE.proof]
    # the second look goes on where the first ended
    assert ["CURSOR=c0" in shell.scripts[1], "CURSOR=c1" in shell.scripts[2]] == [True, True]
    assert "building" in caplog.text


THERE: tuple[bool, list[str]] = (True, [])
# of a unit that systemd does not know any more
FORGOTTEN = DONE
WORKS = [ENGINE, WANTED.image, install({"git": None, "docker-ce": "3:29-1"}, ["git", "docker-ce"])]


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.title)
def test_failed_unit_that_was_reset_is_a_failure(work: Any, caplog: pytest.LogCaptureFixture) -> None:
    shell = Shell(STARTED, FORGOTTEN, (False, []))
    assert not run(shell, work)
    assert shell.scripts[2:] == [work.proof]
    [error] = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert error.startswith(f"{work.title}: {work.unit}.service ended, and what it makes is not there; ")
    assert f"journalctl --unit {work.unit}" in error
    assert work.result in error


def test_connection_lost_before_the_final_check_is_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not run(Shell(STARTED, DONE))
    assert "connection lost (no answer)" in caplog.text


def test_unit_input_is_sent_as_one_archive() -> None:
    shell = Shell(STARTED, DONE, THERE)
    assert run(shell, WANTED.artifact("weights"))
    packed = io.BytesIO(base64.b64decode(shell.stdin[0] or ""))
    with tarfile.open(fileobj=packed) as tar:
        files = {name: tar.extractfile(name) for name in tar.getnames()}
        texts = {name: file.read().decode() for name, file in files.items() if file}
    assert set(texts) == {"work.sh", "request.json", "download_weights.py"}
    assert f"FINAL={WANTED.artifact('weights').path}\n" in texts["work.sh"]
    assert "make_it() {\ndocker run" in texts["work.sh"]
    assert texts["download_weights.py"].startswith('"""Download')


def test_running_unit_is_reattached(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "pyinfra"):
        assert run(Shell((True, ["attached"]), DONE, THERE))
    assert "already running on the host, re-attached to it" in caplog.text


def test_work_that_refuses_to_start_says_so_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    said = ["tritonhost: waiting", "tritonhost: refused: a lock is held by pid 7; expected it to end"]
    assert not run(
        Shell(STARTED, (True, [*said, "tritonhost: failed with exit code 75", *FAILED[1][1:]]), (True, []))
    )
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [f"{ENGINE.title}: a lock is held by pid 7; expected it to end"]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([STARTED, FAILED, (True, [])], "exit-code, exit code 65; expected "),
        ([STARTED, FAILED, (True, [])], "trying again does not help: fix what the lines above name"),
        ([STARTED, UNMATCHED, (True, [])], "; no enabled repository holds that package at that version"),
        ([STARTED, KILLED, (True, [])], "; run the same command again to retry"),
        ([(False, ["no space"])], "the transient unit did not start"),
        ([STARTED, (False, [])], "connection lost (the host did not answer)"),
        ([STARTED], "connection lost (no answer)"),
    ],
)
def test_failed_work_reports_reason_and_next_step(
    caplog: pytest.LogCaptureFixture, answers: list[Any], expected: str
) -> None:
    assert not run(Shell(*answers))
    assert expected in caplog.text
    # what was lost may go on: its output is followed
    look = "--follow --unit" if "connection lost" in expected else "--unit"
    assert f"journalctl {look} {ENGINE.unit}" in caplog.text


def test_gated_model_without_token_never_reaches_the_host(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    monkeypatch.delenv("HF_TOKEN_SECRET_OCID", raising=False)
    shell = Shell()
    assert not run(shell, release(tables={"weights": {"gated": True}}).artifact("weights"))
    assert "export HF_TOKEN" in caplog.text
    assert shell.scripts == []


def test_token_is_sent_only_in_the_archive(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_CANARY0123456789")
    shell = Shell(STARTED, FAILED)
    with caplog.at_level("DEBUG", "pyinfra"):
        assert not run(shell, release(tables={"weights": {"gated": True}}).artifact("weights"))
    assert "CANARY" not in caplog.text
    assert not [script for script in shell.scripts if "CANARY" in script]
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(shell.stdin[0] or ""))) as tar:
        assert tar.getmember("token").mode == 0o600


def test_invalid_token_is_not_printed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_CANARY 0123;456789")
    assert not run(Shell(), release(tables={"weights": {"gated": True}}).artifact("weights"))
    assert "found characters no token has" in caplog.text
    assert "CANARY" not in caplog.text


# --- the release

TEMPLATES = {model: "max_batch_size: ${triton_max_batch_size}\n" for model in WANTED.models}


def test_complete_release_is_not_rewritten() -> None:
    host = Host({ReleaseFiles: COMPLETE})
    assert commands_of(laid_out, host, release=WANTED) == []
    assert host.noop_description == f"release {WANTED.id} is complete"
    assert host.asked == [("ReleaseFiles", {"path": WANTED.path})]


def test_release_is_written_in_one_command_from_templates() -> None:
    host = Host({ReleaseFiles: ABSENT, TemplateFiles: TEMPLATES, Provenance: Found(commit="c" * 40)})
    [command] = commands_of(laid_out, host, release=WANTED)
    script = text_of(command)
    assert script.startswith(f"FINAL={WANTED.path}\nPARTIAL={WANTED.partial}\nHEAD=")
    assert f"TEMPLATES={WANTED.template_directory}\n" in script
    packed = io.BytesIO(base64.b64decode(command.connector_arguments["_stdin"]))
    with tarfile.open(fileobj=packed) as tar:
        config = tar.extractfile("model_repository/ensemble/config.pbtxt")
        document = tar.extractfile("release.json")
        made_of = tar.extractfile("provenance.json")
        assert made_of and json.loads(made_of.read())["source"]["commit"] == "c" * 40
        assert config and config.read() == b"max_batch_size: 1\n"
        assert document and json.loads(document.read())["release"] == WANTED.id
        assert set(tar.getnames()) == {
            *(f"model_repository/{model}/config.pbtxt" for model in WANTED.models),
            *("serve", "wait-ready", "release.json", "provenance.json", "golden.json"),
        }


class Inventoried(Host):
    """A host with its inventory data."""

    class data:
        dict = staticmethod(lambda: DATA)


def test_bill_of_materials_is_written_locally_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_operations, "BUILD", tmp_path / "build")
    document = json.loads(json.dumps(WANTED.document()))
    found: dict[str, Any] = {
        "release": WANTED.id,
        "packages": [],
        "images": {WANTED.image.tag: {"id": f"sha256:{'1' * 64}", "digests": []}},
        "artifacts": {},
        "source": None,
    }
    links = {"current": WANTED.id}
    # built again since the release was written
    now = f"sha256:{'2' * 64}"
    facts: dict[type, object] = {
        ReleaseLinks: links,
        ReleaseDocuments: (document, found),
        Provenance: Found(images={WANTED.image.tag: Image(now, ())}),
    }
    [command] = commands_of(bill_of_materials, Inventoried(facts))
    assert isinstance(command, FunctionCommand)
    assert command.function(None, Inventoried({}), *command.args)
    written = json.loads((tmp_path / "build" / "sbom-gpu-1.json").read_text())
    assert written["metadata"]["component"]["version"] == WANTED.id
    assert now in json.dumps(written)
    assert "1" * 64 not in json.dumps(written)


def test_bill_of_materials_needs_provenance() -> None:
    cases: list[tuple[dict[str, str], str]] = [
        ({}, "found no release"),
        ({"current": "r"}, "no provenance.json in release r"),
    ]
    for links, expected in cases:
        host = Inventoried({ReleaseLinks: links, ReleaseDocuments: None})
        assert expected in refusal_of(commands_of(bill_of_materials, host))


def test_missing_templates_are_refused_by_name() -> None:
    found = {model: text for model, text in TEMPLATES.items() if model != "ensemble"}
    message = refusal_of(
        commands_of(laid_out, Host({ReleaseFiles: ABSENT, TemplateFiles: found}), release=WANTED)
    )
    assert "found no config.pbtxt of ensemble" in message
    assert "v0.13.0" in message


def test_unfillable_template_is_refused_with_its_line() -> None:
    found = {**TEMPLATES, "ensemble": "max_batch_size: ${something_new}\n"}
    message = refusal_of(
        commands_of(laid_out, Host({ReleaseFiles: ABSENT, TemplateFiles: found}), release=WANTED)
    )
    assert message.startswith("ensemble/config.pbtxt line 1: something_new: found no value")


def test_current_is_switched_by_renames() -> None:
    script = switch_script(WANTED.settings.model_copy(update={"data_root": "/data/root"}), "two")
    assert script.startswith("DATA_ROOT=/data/root\nSTATE_ROOT=/data/root\nRELEASE=two\n")
    assert "mv -T" in script
    assert "ln -sfn" not in script


# --- packages


LOCKS = {"docker-ce": "docker-ce-3:28.5.2-1.el9.*"}
PINNED = {"docker-ce": "3:28.5.2-1.el9", "git": None}
LOCKED = with_locks((), LOCKS)


@pytest.mark.parametrize(
    ("installed", "specs"),
    [
        ({}, "docker-ce-3:28.5.2-1.el9 git"),
        # another version of either direction: https://github.com/pyinfra-dev/pyinfra/issues/1910
        ({"docker-ce": ("3:27.5.1-1.el9",), "git": ("0:1-1",)}, "docker-ce-3:28.5.2-1.el9"),
        ({"docker-ce": ("3:29.0.0-1.el9",), "git": ("0:1-1",)}, "docker-ce-3:28.5.2-1.el9"),
        # the epoch counts
        ({"docker-ce": ("1:28.5.2-1.el9",), "git": ("0:1-1",)}, "docker-ce-3:28.5.2-1.el9"),
        ({"docker-ce": ("3:28.5.2-1.el9",)}, "git"),
    ],
)
def test_changed_packages_are_installed_by_one_detached_command(
    installed: dict[str, tuple[str, ...]], specs: str
) -> None:
    host = Host({InstalledVersions: installed, VersionLocks: LOCKED})
    [found] = commands_of(pinned, host, versions=PINNED, locks=LOCKS, lock_wait_s=7)
    assert isinstance(found, FunctionCommand)
    [work] = found.args
    words = shlex.join([*INSTALL, *specs.split()])
    place = f"/run/tritonhost/{work.unit}"
    recorded = f"sh {place}/record_packages.sh /etc/tritonhost"
    assert work.body() == f"make_it() {{\n{recorded} sh {place}/run_unlocked.sh 7 {words}\n}}\n"
    # named after what is wanted, so that a run which finds half of it installed takes the same work up
    assert work.unit == install(PINNED, []).unit


def test_versions_and_their_locks_change_together() -> None:
    host = Host({InstalledVersions: {}, VersionLocks: ["docker-ce-3:27.5.1-1.el9.*", "bash-5.1.8-9.el9.*"]})
    [found] = commands_of(pinned, host, versions=PINNED, locks=LOCKS, lock_wait_s=7)
    [work] = found.args
    place = f"/run/tritonhost/{work.unit}"
    noting = f"sh {place}/record_packages.sh /etc/tritonhost sh {place}/run_unlocked.sh 7 dnf"
    assert f"sh {place}/under_locks.sh {place}/versionlock.list {noting}" in work.body()
    assert work.files["versionlock.list"].splitlines() == ["bash-5.1.8-9.el9.*", *LOCKED]


def test_missing_locks_are_written_without_dnf() -> None:
    installed = {"docker-ce": ("3:28.5.2-1.el9",), "git": ("0:1-1",)}
    host = Host({InstalledVersions: installed, VersionLocks: []})
    [command] = commands_of(pinned, host, versions=PINNED, locks=LOCKS, lock_wait_s=7)
    assert text_of(command).startswith("install -D -m 644 /dev/stdin /etc/dnf/plugins/.versionlock.list.new")
    assert command.connector_arguments["_stdin"].splitlines() == LOCKED


def test_truncated_text_never_replaces_a_file(tmp_path: Path) -> None:
    place, text = tmp_path / "a unit", "[Unit]\nDescription=x\n"
    script = text_of(etc_files.replacing(str(place), text))
    subprocess.run(["sh", "-c", script], input=text, text=True, check=True)
    assert place.read_text("utf-8") == text
    place.write_text("old", "utf-8")
    for cut in ("", "[Unit]\n", text + "x"):
        assert subprocess.run(["sh", "-c", script], input=cut, text=True, check=False).returncode != 0
        assert place.read_text("utf-8") == "old"


# --- the service


def test_serving_release_is_not_restarted() -> None:
    host = Host({HostState: converged(WANTED)})
    assert commands_of(serving, host, release=WANTED) == []
    assert host.noop_description == f"release {WANTED.id} serves"


def test_unproven_release_is_queried_without_a_restart() -> None:
    [command] = commands_of(
        serving, Host({HostState: replace(converged(WANTED), verdicts={})}), release=WANTED
    )
    assert (swap_of(command).way, swap_of(command).problems) == (None, [])


def test_other_running_release_is_the_reason_for_a_restart() -> None:
    host = converged(WANTED)
    assert host.container
    other = replace(host, container=replace(host.container, labels={"tritonhost.release": "other"}))
    [command] = commands_of(serving, Host({HostState: other}), release=WANTED)
    swap = swap_of(command)
    assert (swap.running, swap.problems) == ("other", ["running release: other"])
    assert swap.way is not None
    assert swap.way.way == "in place"


def test_inactive_unit_is_restarted_even_if_it_answers() -> None:
    host = converged(WANTED)
    [command] = commands_of(serving, Host({HostState: replace(host, units={})}), release=WANTED)
    assert swap_of(command).problems == ["service: not active"]


def swap_of(command: Any) -> _Swap:
    [swap] = command.args
    assert isinstance(swap, _Swap)
    return swap


def test_refusal_fails_its_host_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert _refuse(None, Host({}), "no") is False  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == ["no"]


def test_output_is_limited_in_lines_and_width(caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"line {number} {'x' * 300}" for number in range(20)]
    state = "state: ActiveState=inactive SubState=dead Result=success ExecMainStatus=0"
    with caplog.at_level("INFO", "pyinfra"):
        assert run(Shell(STARTED, (True, [*lines, state]), THERE))
    shown = [record.getMessage() for record in caplog.records]
    assert len(shown) == detached.LINES_SHOWN + 1
    assert f"… {20 - detached.LINES_SHOWN} more lines" in shown[0]
    assert max(map(len, shown)) < 300
