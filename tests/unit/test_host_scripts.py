"""The scripts of files/host, run under sh on this machine, with the tools of a host played by stubs."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import Artifact, ServingImage
from operations.release import switch_script
from operations.scripts import HOST_SCRIPTS, archive, host_functions, host_script
from tests.unit.builders import settings
from tests.unit.stubs import Stubs

SCRIPTS = sorted(HOST_SCRIPTS.glob("*.sh"))
# What shellcheck warns of and is meant
NOT_MEANT = {
    "SC1007": "a variable that is empty for one command",
    "SC2034": "set for the part of a script that is appended when it is sent",
    "SC2044": "names of find that hold no space: kernel devices and artifacts' digests",
    "SC2046": "a list of such names is split into words",
    "SC2154": "set by the variables before the script when it is sent",
    "SC3013": "test -ef: bash and dash, the shells of a host and of this machine, know it",
}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_host_script_is_valid_shell(path: Path) -> None:
    done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_host_script_is_valid_shell_with_variables(path: Path) -> None:
    text = host_script(path.name, {"A": "it's; $(reboot)\nline"}, "make_it() {\n:\n}\n")
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not [line for line in text.splitlines() if line.lstrip().startswith("#")]


def test_host_script_is_sent_with_the_functions_it_takes() -> None:
    shared = host_functions("sections.sh")
    names = re.findall(r"^([a-z_]+)\(\)", shared, re.MULTILINE)
    assert names == ["section", "part", "has", "nearest"]
    takers = [path.name for path in SCRIPTS if "\n. ./sections.sh\n" in path.read_text("utf-8")]
    assert takers == [
        "at_work.sh",
        "exposure.sh",
        "must_gather.sh",
        "preflight.sh",
        "probe.sh",
        "provenance.sh",
        "survey.sh",
        "teardown.sh",
    ]
    for path in SCRIPTS:
        text = host_script(path.name, {})
        assert (shared in text) is (path.name in (*takers, "sections.sh"))
        assert ". ./" not in text
        # firewall_state.sh runs in a shell of its own, inside the probe
        own = [name for name in names if re.search(rf"^{name}\(\)", path.read_text("utf-8"), re.MULTILINE)]
        assert own == {"sections.sh": names, "firewall_state.sh": ["part"]}.get(path.name, []), path.name


@pytest.mark.parametrize("exists", [True, False])
def test_nearest_directory_is_one_that_exists(stubs: Stubs, tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "a/b"
    if exists:
        path.mkdir(parents=True)
    done = stubs.run(
        f'{host_functions("sections.sh")}\nnearest "{path}"\necho "$place"\nnearest /none\necho "[$place]"'
    )
    assert done.stdout.splitlines() == [str(path if exists else tmp_path), "[]"]


@pytest.mark.slow
def test_shellcheck_finds_nothing_in_a_host_script() -> None:
    assert shutil.which("shellcheck"), "install shellcheck: tests/lab/lab packages --check --install"
    command = [
        "shellcheck",
        "--shell=sh",
        "--severity=warning",
        f"--exclude={','.join(NOT_MEANT)}",
        *map(str, SCRIPTS),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_variables_reach_a_script_unchanged() -> None:
    value = 'it\'s "quoted" $(echo no) `x` \\ \n second line'
    text = host_script("switch_release.sh", {"DATA_ROOT": value}).split("set -eu")[0]
    done = subprocess.run(["sh", "-c", text + 'printf %s "$DATA_ROOT"'], capture_output=True, text=True)
    assert done.stdout == value


def test_an_archive_is_unpacked_by_the_host_s_tools(tmp_path: Path) -> None:
    files = {"a": "é\n", "dir/b c": ""}
    subprocess.run(
        ["sh", "-c", 'base64 -d | tar -xzf - -C "$0"', str(tmp_path)],
        input=archive(files),
        text=True,
        check=True,
    )
    assert {name: (tmp_path / name).read_text("utf-8") for name in files} == files
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


# --- work.sh and seal.sh


def work(stubs: Stubs, artifact: Artifact | ServingImage, body: str) -> subprocess.CompletedProcess[str]:
    """The artifact's work.sh, with shell text in the place of its commands."""
    if not (stubs.directory / "docker").exists():
        stubs.add("docker", "exit 1")
    functions = f"make_it() {{\n{body}\n}}\n" + host_script("seal.sh", {})
    return stubs.run(host_script("work.sh", artifact.variables(), functions))


def engine(tmp_path: Path, resumable: bool = False, checksums: bool = True) -> Artifact:
    return Artifact("engine", str(tmp_path / "data"), {"gpu": "A10"}, (), resumable, checksums)


MAKE = 'printf abc >"$PARTIAL/rank0.engine"; mkdir -p "$PARTIAL/sub dir"; printf x >"$PARTIAL/sub dir/a b"'
SHA_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_work_ends_in_a_complete_artifact_with_its_manifest(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    done = work(stubs, wanted, MAKE)
    assert (done.returncode, done.stderr) == (0, "")
    text = (Path(wanted.path) / "manifest.json").read_text("utf-8")
    assert text.count("\n") == 1
    manifest = json.loads(text)
    file = Path(wanted.path) / "rank0.engine"
    assert manifest["files"]["rank0.engine"] == {
        "size": 3,
        "mtime": int(file.stat().st_mtime),
        "sha256": SHA_ABC,
    }
    assert set(manifest["files"]) == {"rank0.engine", "sub dir/a b"}
    assert (manifest["kind"], manifest["key"], manifest["inputs"]) == ("engine", wanted.key, {"gpu": "A10"})
    assert [path.name for path in Path(wanted.path).parent.iterdir()] == [wanted.key]
    assert f"done: {wanted.path}" in done.stdout


def test_sealed_artifact_is_read_only_for_others(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    work(stubs, wanted, f'umask 0077; {MAKE}; chmod 666 "$PARTIAL/sub dir/a b"')
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(wanted.path).rglob("*")}
    assert modes == {"rank0.engine": 0o644, "sub dir": 0o755, "a b": 0o644, "manifest.json": 0o644}


@pytest.mark.parametrize("content", ["", ": >"])
def test_work_without_a_required_file_is_not_sealed(tmp_path: Path, stubs: Stubs, content: str) -> None:
    wanted = replace(engine(tmp_path), names=("rank0.engine", "rank1.engine"))
    done = work(stubs, wanted, f'{MAKE}; {f"""{content}"$PARTIAL/rank1.engine" """ if content else ":"}')
    assert done.returncode == 65
    assert "found no rank1.engine, expected it beside rank0.engine" in done.stdout
    assert not Path(wanted.path).exists()
    assert work(stubs, wanted, f'{MAKE}; echo x >"$PARTIAL/rank1.engine"').returncode == 0


def test_a_tree_without_checksums_has_a_manifest_without_files(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path, checksums=False)
    assert work(stubs, wanted, MAKE).returncode == 0
    assert json.loads((Path(wanted.path) / "manifest.json").read_text("utf-8"))["files"] == {}


def test_artifact_without_files_is_sealed(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    assert work(stubs, wanted, ":").returncode == 0
    assert json.loads((Path(wanted.path) / "manifest.json").read_text("utf-8"))["files"] == {}


@pytest.mark.parametrize("step", ["false", "exit 7", "sh -c 'exit 9'", f"{MAKE}; false; true"])
def test_failed_work_leaves_no_artifact(tmp_path: Path, stubs: Stubs, step: str) -> None:
    wanted = engine(tmp_path)
    done = work(stubs, wanted, step)
    assert done.returncode != 0
    assert not Path(wanted.path).exists()
    assert f"failed with exit code {done.returncode}" in done.stdout


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\tb", "a\nb"])
def test_file_name_that_needs_json_escapes_is_refused(tmp_path: Path, stubs: Stubs, name: str) -> None:
    wanted = engine(tmp_path)
    (tmp_path / name).write_text("x", "utf-8")
    done = work(stubs, wanted, f'cp {tmp_path}/a?b "$PARTIAL/"')
    assert done.returncode != 0
    assert not Path(wanted.path).exists()


def test_file_name_is_not_used_as_a_printf_format(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    assert work(stubs, wanted, 'printf abc >"$PARTIAL/100%s%n"').returncode == 0
    manifest = json.loads((Path(wanted.path) / "manifest.json").read_text("utf-8"))
    assert manifest["files"]["100%s%n"]["sha256"] == SHA_ABC


def test_work_container_is_removed_before_and_after(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    work(stubs, wanted, "false")
    assert stubs.calls == [f"docker rm --force {wanted.unit}"] * 2


def partial_of(wanted: Artifact) -> Path:
    path = Path(wanted.variables()["PARTIAL"])
    path.mkdir(parents=True)
    (path / "begun").write_text("x", "utf-8")
    return path


@pytest.mark.parametrize(("resumable", "kept"), [(True, {"begun", "new"}), (False, {"new"})])
def test_interrupted_work_is_resumed_or_discarded(
    tmp_path: Path, stubs: Stubs, resumable: bool, kept: set[str]
) -> None:
    wanted = engine(tmp_path, resumable)
    partial_of(wanted)
    assert work(stubs, wanted, 'printf abc >"$PARTIAL/new"').returncode == 0
    assert {path.name for path in Path(wanted.path).iterdir()} == kept | {"manifest.json"}
    assert set(json.loads((Path(wanted.path) / "manifest.json").read_text("utf-8"))["files"]) == kept


@pytest.mark.parametrize(("resumable", "kept"), [(True, {"old", "new"}), (False, {"new"})])
def test_a_damaged_artifact_is_replaced(
    tmp_path: Path, stubs: Stubs, resumable: bool, kept: set[str]
) -> None:
    wanted = engine(tmp_path, resumable)
    work(stubs, wanted, 'printf x >"$PARTIAL/old"')
    done = work(stubs, wanted, 'printf abc >"$PARTIAL/new"')
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in Path(wanted.path).iterdir()} == kept | {"manifest.json"}
    assert [path.name for path in Path(wanted.path).parent.iterdir()] == [wanted.key]


def test_old_artifact_is_kept_until_the_new_one_is_complete(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    work(stubs, wanted, 'printf x >"$PARTIAL/old"')
    assert work(stubs, wanted, "exit 3").returncode == 3
    assert {path.name for path in Path(wanted.path).iterdir()} == {"old", "manifest.json"}


def test_image_work_writes_no_directory(tmp_path: Path, stubs: Stubs) -> None:
    done = work(stubs, ServingImage({"a": 1}, ()), f"echo made >{tmp_path}/made")
    assert (done.returncode, done.stdout) == (0, "tritonhost: done\n")
    assert (tmp_path / "made").exists()


# What a container made is not trusted: it ran as root's user, and may have left links for root to follow.


@pytest.mark.parametrize(
    "plant",
    [
        'ln -s "{victim}" "$PARTIAL/.manifest.new"',
        'ln -s "{victim}" "$PARTIAL/manifest.json"',
        'mkdir "$PARTIAL/manifest.json"',
        'printf x >"$PARTIAL/manifest.json"',
        'mkdir "$PARTIAL/.manifest.new"',
        'ln -s "{victim}" "$PARTIAL/weights.safetensors"',
        'mkdir "$PARTIAL/sub"; ln -s "{victim}" "$PARTIAL/sub/link"',
        'ln -s / "$PARTIAL/root"',
        'mkfifo "$PARTIAL/pipe"',
        'ln "{victim}" "$PARTIAL/hard"',
    ],
)
@pytest.mark.parametrize("resumable", [False, True])
def test_seal_refuses_planted_files(tmp_path: Path, stubs: Stubs, plant: str, resumable: bool) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched", "utf-8")
    victim.chmod(0o600)
    wanted = engine(tmp_path, resumable)
    done = work(stubs, wanted, f"{MAKE}; {plant.format(victim=victim)}")
    assert done.returncode == 65
    assert "found" in done.stderr and "expected" in done.stderr and "run again" in done.stderr
    assert not Path(wanted.path).exists()
    assert (victim.read_text("utf-8"), victim.stat().st_mode & 0o777) == ("untouched", 0o600)
    # nor does it stay in the way
    done = work(stubs, wanted, MAKE)
    assert (done.returncode, done.stderr) == (0, "")
    assert (victim.read_text("utf-8"), victim.stat().st_mode & 0o777) == ("untouched", 0o600)


def test_work_replaces_a_link_at_its_partial_directory(tmp_path: Path, stubs: Stubs) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    wanted = engine(tmp_path, resumable=True)
    partial = Path(wanted.variables()["PARTIAL"])
    partial.parent.mkdir(parents=True)
    partial.symlink_to(elsewhere)
    assert work(stubs, wanted, MAKE).returncode == 0
    assert list(elsewhere.iterdir()) == []


def test_seal_keeps_a_checkout_s_links(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path, checksums=False)
    (tmp_path / "victim").touch(0o600)
    assert work(stubs, wanted, f'{MAKE}; ln -s {tmp_path}/victim "$PARTIAL/link"').returncode == 0
    assert (Path(wanted.path) / "link").is_symlink()
    assert (tmp_path / "victim").stat().st_mode & 0o777 == 0o600


def test_seal_removes_the_container_first(tmp_path: Path, stubs: Stubs) -> None:
    stubs.add("docker", "exit 1")
    wanted = engine(tmp_path)
    work(stubs, wanted, f'{MAKE}; echo made >>"{stubs.log}"')
    removed = f"docker rm --force {wanted.unit}"
    assert stubs.calls == [removed, "made", removed, removed]


@pytest.mark.parametrize("bits", ["4755", "2755", "6755", "1777"])
def test_seal_clears_setuid_and_sticky_bits(tmp_path: Path, stubs: Stubs, bits: str) -> None:
    wanted = engine(tmp_path)
    set_bits = f'chmod {bits} "$PARTIAL/rank0.engine" "$PARTIAL/sub dir" "$PARTIAL"'
    assert work(stubs, wanted, f"{MAKE}; {set_bits}").returncode == 0
    found = [Path(wanted.path), *Path(wanted.path).rglob("*")]
    assert {oct(path.stat().st_mode) for path in found if path.is_dir()} == {"0o40755"}
    assert {path.stat().st_mode & 0o7022 for path in found} == {0}


@pytest.mark.skipif(os.getuid() != 0, reason="root alone gives a file away")
def test_seal_makes_root_the_owner(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    assert work(stubs, wanted, f'{MAKE}; chown -R 60600:60600 "$PARTIAL"').returncode == 0
    found = [Path(wanted.path), *Path(wanted.path).rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {(0, 0)}


def test_work_limits_the_memory_of_its_container(tmp_path: Path, stubs: Stubs) -> None:
    stubs.add("docker", ":")
    assert work(stubs, engine(tmp_path), "docker run --rm image").returncode == 0
    run = next(call for call in stubs.calls if call.startswith("docker run"))
    assert re.fullmatch(r"docker run --memory (\d+k) --memory-swap \1 --rm image", run)


def test_work_script_has_the_worker_user_id() -> None:
    assert f"WORKER={commands.WORKER} " in (HOST_SCRIPTS / "work.sh").read_text("utf-8")


def test_partial_directory_is_private_while_work_runs(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path, resumable=True)
    modes = []
    for _ in range(2):
        work(stubs, wanted, f'stat -c %a "$PARTIAL" >{tmp_path}/mode; {MAKE}')
        modes.append((tmp_path / "mode").read_text("utf-8").strip())
    assert {mode[-1] for mode in modes} == {"0"}
    assert Path(wanted.path).stat().st_mode & 0o777 == 0o755


# --- switch_release.sh


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    root = tmp_path / "data root"
    for name in ("one", "two", "three"):
        (root / "releases" / name).mkdir(parents=True)
        (root / "releases" / name / "manifest.json").write_text("{}", "utf-8")
    (root / "verdicts").mkdir()
    return root


def judge(stubs: Stubs, root: Path, name: str, verdict: str, reason: str = "") -> str:
    """What is remembered of a release after another verdict."""
    variables = {
        "DATA_ROOT": str(root),
        "STATE_ROOT": str(root),
        "RELEASE": name,
        "VERDICT": verdict,
        "REASON": reason,
    }
    done = stubs.run(host_script("judge.sh", variables))
    assert (done.returncode, done.stderr) == (0, "")
    return (root / "verdicts" / name).read_text("utf-8")


def links(root: Path) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in root.iterdir() if path.is_symlink()}


def switch(stubs: Stubs, root: Path, name: str) -> subprocess.CompletedProcess[str]:
    return stubs.run(switch_script(settings().model_copy(update={"data_root": str(root)}), name))


def test_the_first_switch_has_no_previous(stubs: Stubs, data_root: Path) -> None:
    assert switch(stubs, data_root, "one").returncode == 0
    assert links(data_root) == {"current": "releases/one"}


def test_switch_remembers_the_previous_release(stubs: Stubs, data_root: Path) -> None:
    for name in ("one", "two", "two", "three"):
        assert switch(stubs, data_root, name).returncode == 0
        judge(stubs, data_root, name, "proven")
    assert links(data_root) == {"current": "releases/three", "previous": "releases/two"}


def test_a_rollback_is_a_switch(stubs: Stubs, data_root: Path) -> None:
    for name in ("one", "two", "one"):
        switch(stubs, data_root, name)
        judge(stubs, data_root, name, "proven")
    assert links(data_root) == {"current": "releases/one", "previous": "releases/two"}


def test_unproven_release_never_becomes_previous(stubs: Stubs, data_root: Path) -> None:
    switch(stubs, data_root, "one")
    judge(stubs, data_root, "one", "proven")
    switch(stubs, data_root, "two")
    judge(stubs, data_root, "two", "failed", "no answer")
    switch(stubs, data_root, "three")
    assert links(data_root) == {"current": "releases/three", "previous": "releases/one"}


def test_switch_back_leaves_no_previous_release(stubs: Stubs, data_root: Path) -> None:
    switch(stubs, data_root, "one")
    judge(stubs, data_root, "one", "proven")
    switch(stubs, data_root, "two")
    switch(stubs, data_root, "one")
    assert links(data_root) == {"current": "releases/one"}


def test_a_verdict_is_one_line_with_its_time_and_reason(stubs: Stubs, data_root: Path) -> None:
    assert re.fullmatch(
        r"failed \d{4}-\d\d-\d\dT[\d:]{8}Z it's \$HOME\n",
        judge(stubs, data_root, "one", "failed", "it's $HOME"),
    )
    assert judge(stubs, data_root, "one", "proven").startswith("proven ")


def test_proven_verdict_is_not_overwritten_by_failure(stubs: Stubs, data_root: Path) -> None:
    judge(stubs, data_root, "one", "proven")
    assert judge(stubs, data_root, "one", "failed", "its host").startswith("proven ")


def test_proven_release_can_be_withdrawn_and_proven_again(stubs: Stubs, data_root: Path) -> None:
    judge(stubs, data_root, "one", "proven")
    assert judge(stubs, data_root, "one", "withdrawn", "by hand").startswith("withdrawn ")
    assert judge(stubs, data_root, "one", "proven").startswith("proven ")


def test_current_never_points_to_an_incomplete_release(stubs: Stubs, data_root: Path) -> None:
    switch(stubs, data_root, "one")
    (data_root / "releases/two/manifest.json").unlink()
    done = switch(stubs, data_root, "two")
    assert done.returncode == 65
    assert "release two: no manifest" in done.stderr
    assert links(data_root) == {"current": "releases/one"}


def test_incomplete_release_does_not_become_previous(stubs: Stubs, data_root: Path) -> None:
    switch(stubs, data_root, "one")
    (data_root / "releases/one/manifest.json").unlink()
    assert switch(stubs, data_root, "two").returncode == 0
    assert links(data_root) == {"current": "releases/two"}


def test_links_of_a_killed_switch_are_cleaned_up(stubs: Stubs, data_root: Path) -> None:
    (data_root / ".current.new.1").symlink_to("releases/one")
    switch(stubs, data_root, "two")
    assert links(data_root) == {"current": "releases/two"}


# --- hold_lock.sh


def lock_script(directory: Path, who: str) -> str:
    return host_script("hold_lock.sh", {"WHO": who, "DIRECTORY": str(directory)})


def test_lock_lasts_while_stdin_is_open_and_names_its_holder(tmp_path: Path) -> None:
    first = subprocess.Popen(
        ["sh", "-c", lock_script(tmp_path, "ann's run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin and first.stdout
    assert first.stdout.readline() == "held\n"
    second = ["sh", "-c", lock_script(tmp_path, "bob")]
    refused = subprocess.run(second, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stdout == f"refused ann's run; on this host: process {first.pid}\n"
    first.kill()  # however it ends
    first.wait()
    first.stdin.close()
    held = subprocess.run(second, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (held.returncode, held.stdout) == (0, "held\n")


# --- soak.sh


def test_soak_fails_when_the_server_ends_or_is_replaced(stubs: Stubs) -> None:
    variables = {"SERVICE": "triton", "SOAK": "1"}
    stubs.add("sleep", "exit 0")
    stubs.add("docker", "case $3 in *Running*) echo abc true ;; *) echo abc ;; esac")
    assert stubs.run(host_script("soak.sh", variables)).returncode == 0
    for answer in ("echo def true", "echo abc false", "exit 1"):
        stubs.add("docker", f"case $3 in *Running*) {answer} ;; *) echo abc ;; esac")
        done = stubs.run(host_script("soak.sh", variables))
        assert (done.returncode, done.stdout) == (1, "the server ended 1 s after its golden answer\n")


# --- lay_out_release.sh


@pytest.mark.parametrize("model", ["link", "file", "outside"])
def test_lay_out_follows_no_link_of_a_checkout(tmp_path: Path, stubs: Stubs, model: str) -> None:
    elsewhere, source = tmp_path / "elsewhere", tmp_path / "data/sources/s"
    (elsewhere / "ensemble").mkdir(parents=True)
    (elsewhere / "ensemble/secret").write_text("secret", "utf-8")
    templates = source / "tree/templates"
    (source / "tree").mkdir(parents=True)
    if model == "outside":
        templates.symlink_to(elsewhere)
    elif model == "link":
        templates.mkdir()
        (templates / "ensemble").symlink_to(elsewhere / "ensemble")
    else:
        (templates / "ensemble").mkdir(parents=True)
        (templates / "ensemble/config.pbtxt").symlink_to(elsewhere / "ensemble/secret")
    final = tmp_path / "data/releases/r"
    variables = {
        "FINAL": str(final),
        "PARTIAL": str(final.parent / ".r.partial"),
        "HEAD": '{"kind": "release", "key": "r", "inputs": {}',
        "TEMPLATES": str(templates),
        "SOURCE": str(source),
        "MODELS": "ensemble",
    }
    script = host_script("lay_out_release.sh", variables, host_script("seal.sh", {}))
    done = stubs.run(script, stdin=archive({"model_repository/ensemble/config.pbtxt": "filled"}))
    assert done.returncode == 65
    assert "found" in done.stderr and "expected" in done.stderr
    assert not final.exists()
    assert [path.name for path in (elsewhere / "ensemble").iterdir()] == ["secret"]
    assert (elsewhere / "ensemble/secret").read_text("utf-8") == "secret"


def test_release_overlays_our_files_on_the_checkout_s_models(tmp_path: Path, stubs: Stubs) -> None:
    templates = tmp_path / "templates"
    (templates / "ensemble").mkdir(parents=True)
    (templates / "preprocessing/1").mkdir(parents=True)
    (templates / "unused").mkdir()
    (templates / "ensemble/config.pbtxt").write_text("${unfilled}", "utf-8")
    (templates / "preprocessing/1/model.py").write_text("code", "utf-8")
    final = tmp_path / "data/releases/r"
    script = host_script(
        "lay_out_release.sh",
        {
            "FINAL": str(final),
            "PARTIAL": str(final.parent / ".r.partial"),
            "HEAD": '{"kind": "release", "key": "r", "inputs": {}',
            "TEMPLATES": str(templates),
            "MODELS": "ensemble\npreprocessing",
        },
        host_script("seal.sh", {}),
    )
    files = {"model_repository/ensemble/config.pbtxt": "filled", "serve": "#!/bin/sh\n"}
    done = stubs.run(script, stdin=archive(files))
    assert (done.returncode, done.stderr) == (0, "")
    found = {str(path.relative_to(final)): path for path in final.rglob("*") if path.is_file()}
    made = {*files, "model_repository/preprocessing/1/model.py"}
    assert set(found) == {*made, "SHA256SUMS", "manifest.json"}
    listed = [line.split("  ./") for line in found["SHA256SUMS"].read_text("utf-8").splitlines()]
    assert {name: digest for digest, name in listed} == {
        name: hashlib.sha256(found[name].read_bytes()).hexdigest() for name in made
    }
    assert found["model_repository/ensemble/config.pbtxt"].read_text("utf-8") == "filled"
    assert (final / "model_repository/ensemble/1").is_dir()
    manifest = json.loads(found.pop("manifest.json").read_text("utf-8"))
    assert set(manifest["files"]) == set(found)
    assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o444}


# --- the other scripts


def see_processes(stubs: Stubs, group: int = 0) -> None:
    """
    The machine's own pgrep, which looks at the test's own process group and at `group`: a lab beside it grows disks, too.

    Never a stub that answers whatever it is asked: it would hide a pattern that matches nothing.
    """
    stubs.add("pgrep", f'exec {shutil.which("pgrep")} -g 0,{group} "$@"')


UNDER = {
    "SOURCE": "/dev/mapper/ocivolume-root",
    "PART": "nvme0n1p3",
    "DISK": "nvme0n1",
    "NUMBER": "3",
    "KIND": "xfs",
}


def under_root(stubs: Stubs, changed: dict[str, str]) -> None:
    """findmnt, lsblk and the kernel's number of a partition, of what is under the root file system; what is there stays."""
    if (stubs.directory / "lsblk").exists():
        return
    is_ = {**UNDER, **changed}
    stubs.add("findmnt", f'case "$*" in *FSTYPE*) echo {is_["KIND"]} ;; *) echo {is_["SOURCE"]} ;; esac')
    stubs.add(
        "lsblk",
        f'[ "$6" = {is_["SOURCE"]} ] && printf "%s\\n" "dm-1 lvm" "{is_["PART"]} part" "{is_["DISK"]} disk"',
    )
    stubs.add("cat", f'[ "$*" = /sys/class/block/{is_["PART"]}/partition ] && echo {is_["NUMBER"]}')


def grow(stubs: Stubs, *steps: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """grow_root.sh for LVM on a partition, with programs that only say that they were called."""
    for name in ("growpart", "pvresize", "lvextend", "xfs_growfs", "resize2fs"):
        if not (stubs.directory / name).exists():
            stubs.add(name, "exit 0")
    if not (stubs.directory / "pgrep").exists():
        see_processes(stubs)
    under_root(stubs, {"KIND": changed.get("TYPE", "xfs")})
    variables = {
        "STEPS": "\n".join(steps),
        "DISK": "nvme0n1",
        "NUMBER": "3",
        "VOLUME": "/dev/nvme0n1p3",
        "SOURCE": "/dev/mapper/ocivolume-root",
        "TYPE": "xfs",
        **changed,
    }
    return stubs.run(host_script("grow_root.sh", variables))


EVERY_STEP = ("partition", "physical volume", "logical volume", "file system")


def grown(stubs: Stubs) -> list[str]:
    looks = ("pgrep", "sleep", "findmnt", "lsblk", "cat")
    return [call for call in stubs.calls if not call.startswith(looks)]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (
            {"SOURCE": "/dev/mapper/other-root"},
            "xfs on /dev/mapper/other-root in /dev/nvme0n1p3 on partition 3",
        ),
        ({"SOURCE": "overlay[/x]"}, "xfs on overlay in /dev/ on partition none of /dev/ under /"),
        (
            {"DISK": "nvme1n1", "PART": "nvme1n1p3"},
            "in /dev/nvme1n1p3 on partition 3 of /dev/nvme1n1 under /",
        ),
        ({"DISK": "nvme1n1"}, "in /dev/nvme0n1p3 on partition 3 of /dev/nvme1n1 under /"),
        ({"NUMBER": "2"}, "in /dev/nvme0n1p3 on partition 2 of /dev/nvme0n1 under /"),
        ({"KIND": "ext4"}, "ext4 on /dev/mapper/ocivolume-root in"),
    ],
    ids=["another volume", "no device", "another disk", "a disk alone", "another partition", "another kind"],
)
def test_root_that_changed_since_the_probe_is_not_grown(
    stubs: Stubs, changed: dict[str, str], found: str
) -> None:
    under_root(stubs, changed)
    done = grow(stubs, *EVERY_STEP)
    assert (done.returncode, grown(stubs)) == (65, [])
    [line] = done.stderr.splitlines()
    assert line.startswith("root file system: found ")
    assert found in line
    assert (
        "expected xfs on /dev/mapper/ocivolume-root in /dev/nvme0n1p3 on partition 3 of /dev/nvme0n1, as it was"
        in line
    )


def test_root_on_a_whole_disk_is_grown(stubs: Stubs) -> None:
    stubs.add("findmnt", 'case "$*" in *FSTYPE*) echo ext4 ;; *) echo /dev/sda ;; esac')
    stubs.add("lsblk", 'echo "sda disk"')
    given = {"SOURCE": "/dev/sda", "DISK": "sda", "NUMBER": "", "VOLUME": "", "TYPE": "ext4"}
    assert grow(stubs, "file system", **given).returncode == 0
    assert grown(stubs) == ["resize2fs /dev/sda"]


def test_each_layer_is_grown_by_its_tool_from_the_disk_up(stubs: Stubs) -> None:
    assert grow(stubs, *EVERY_STEP).returncode == 0
    assert grown(stubs) == [
        "growpart /dev/nvme0n1 3",
        "pvresize /dev/nvme0n1p3",
        "lvextend --extents +100%FREE /dev/mapper/ocivolume-root",
        "xfs_growfs /",
    ]


def test_only_unfinished_layers_are_grown(stubs: Stubs) -> None:
    assert grow(stubs, "file system", TYPE="ext4").returncode == 0
    assert grown(stubs) == ["resize2fs /dev/mapper/ocivolume-root"]


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("growpart", 2, "found exit code 2 of growpart /dev/nvme0n1 3, expected the partition to grow"),
        ("pvresize", 5, "found exit code 5 of pvresize /dev/nvme0n1p3, expected the physical volume to"),
        (
            "lvextend",
            5,
            "found exit code 5 of lvextend --extents +100%FREE /dev/mapper/ocivolume-root, expected",
        ),
        ("xfs_growfs", 1, "found exit code 1 of xfs_growfs /, expected the file system to grow; see"),
    ],
)
def test_failed_layer_stops_the_growth(stubs: Stubs, program: str, code: int, said: str) -> None:
    stubs.add(program, f"exit {code}")
    done = grow(stubs, *EVERY_STEP)
    assert done.returncode == 65
    assert done.stderr.startswith(f"root file system: {said}")
    assert grown(stubs)[-1].startswith(program)


def test_partition_already_grown_by_another_is_not_a_failure(stubs: Stubs) -> None:
    stubs.add("growpart", "exit 1")
    assert grow(stubs, *EVERY_STEP).returncode == 0
    assert grown(stubs)[-1] == "xfs_growfs /"


@contextmanager
def oracle_growth(directory: Path, how: str) -> Iterator[int]:
    """
    A growth of the root file system at work, as a host's table of processes shows it; its process number.

    Oracle's `oci-growfs` is a shell script that execs Python with a file whose name has underscores, and `ocid` starts that
    file itself: https://github.com/oracle/oci-utils, libexec/oci-growfs and lib/oci_utils/impl/ocid_main.py.
    """
    module = directory / "site-packages/oci_utils/impl/oci_growfs_main.py"
    module.parent.mkdir(parents=True)
    module.write_text("import time\nprint('at work', flush=True)\ntime.sleep(60)\n", encoding="utf-8")
    programs = {
        "oci-growfs": f'exec /usr/bin/python3 {module} "$@"',
        "ocid": f"exec /usr/bin/python3 -Es {module} --yes",
        "growpart": "echo at work; sleep 60",
        "python": f"exec /usr/bin/python3 {directory / 'libexec/oci-growfs.py'}",
    }
    name = "growpart" if how == "growpart" else "oci-growfs"
    program = directory / "libexec" / name
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{programs[how]}\n", encoding="utf-8")
    (program.parent / "oci-growfs.py").write_text(module.read_text("utf-8"), encoding="utf-8")
    program.chmod(0o755)
    with subprocess.Popen(
        [str(program), "-y"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "at work\n"
        # one that has ended is gone from the table at once, as on a host
        threading.Thread(target=process.wait).start()
        try:
            yield process.pid
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["oci-growfs", "ocid", "python", "growpart"])
@pytest.mark.slow
def test_grow_root_waits_for_a_real_growth(stubs: Stubs, tmp_path: Path, how: str) -> None:
    with oracle_growth(tmp_path, how) as process:
        see_processes(stubs, process)
        done = grow(stubs, "file system", GROWFS_SECONDS="1")
        assert done.returncode == 65
        assert f"found process {process}, which grows it, still at work after 2 s" in done.stderr
        assert grown(stubs) == []
        # and goes on as soon as it has ended
        stubs.add("sleep", f"kill -s KILL -- -{process}; exec /bin/sleep 0.2")
        assert grow(stubs, *EVERY_STEP).returncode == 0
    assert grown(stubs)[-1] == "xfs_growfs /"


@pytest.mark.parametrize(
    "line",
    [
        # a person who reads of it, or looks for it, grows nothing
        ["sh", "-c", "sleep 60; : /usr/libexec/oci-growfs -y"],
        ["python3", "-c", "import time; time.sleep(60)", "oci_growfs_main.py"],
        ["tail", "-s", "60", "-f", "/dev/null", "/var/log/oci-growfs.log"],
    ],
)
def test_grow_root_does_not_wait_for_a_mere_mention(stubs: Stubs, line: list[str]) -> None:
    with subprocess.Popen(
        line, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        see_processes(stubs, process.pid)
        done = grow(stubs, "file system", GROWFS_SECONDS="0")
        os.killpg(process.pid, signal.SIGKILL)
    assert (done.returncode, done.stderr) == (0, "")


def test_missing_program_is_named_before_anything_is_grown(stubs: Stubs) -> None:
    # no other program than those of the directory is found
    script = host_script(
        "grow_root.sh",
        {
            "STEPS": "partition\nfile system",
            "DISK": "sda",
            "NUMBER": "3",
            "SOURCE": "/dev/sda3",
            "TYPE": "ext4",
        },
    ).replace("PATH=$PATH:/usr/sbin:/sbin", f"PATH={stubs.directory}")
    stubs.add("resize2fs", "exit 0")
    done = stubs.run(script)
    assert done.returncode == 65
    assert (
        "found no growpart, expected it to grow the partition; run: dnf install cloud-utils-growpart"
        in done.stderr
    )
    assert stubs.calls == []


# dd of disks that hold nothing
ZEROS = 'case "$*" in *of=*) ;; *) head -c 1048576 /dev/zero ;; esac'


def disks(stubs: Stubs, *steps: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """local_disks.sh for two disks, with tools that only say that they were called."""
    programs = {**dict.fromkeys(("mdadm", "mkfs.xfs", "wipefs", "lsblk", "systemctl", "sync"), "exit 0")}
    for name, body in {**programs, "dd": ZEROS}.items():
        if not (stubs.directory / name).exists():
            stubs.add(name, body)
    stubs.add("blockdev", "echo 12582912")
    variables = {"STEPS": "\n".join(steps), "LEVEL": "raid0", "DISKS": "nvme0n1\nnvme1n1", "DEVICE": ""}
    variables["ERASE"] = "0"
    names = {"LABEL": "tritonhost", "ARRAY": "/dev/md/tritonhost", "UNFINISHED": str(unfinished(stubs))}
    script = host_script("local_disks.sh", {**variables, **names, **changed}, host_functions("disks.sh"))
    for place in ("/sys/class/block", "/sys/block"):
        script = script.replace(place, str(stubs.directory / "block"))
    return stubs.run(script)


def unfinished(stubs: Stubs) -> Path:
    """Where a run writes what it begins."""
    return stubs.directory / "unfinished"


def held(stubs: Stubs, disk: str, holder: str) -> None:
    (stubs.directory / "block" / disk / "holders" / holder).mkdir(parents=True)


def done_to_disks(stubs: Stubs) -> list[str]:
    """But for reading their two ends, and for writing through."""
    return [call for call in stubs.calls if call.split()[0] not in ("blockdev", "dd", "sync")]


def test_array_is_created_on_empty_disks_without_force(stubs: Stubs) -> None:
    stubs.add("mdadm", f"cp {unfinished(stubs)} {unfinished(stubs)}.seen")
    stubs.add("mkfs.xfs", f"test -s {unfinished(stubs)}")
    assert disks(stubs, "create", "file system").returncode == 0
    # known from before the first write until the file system is made
    uuid = unfinished(stubs).with_suffix(".seen").read_text("utf-8").strip()
    assert not unfinished(stubs).exists()
    assert done_to_disks(stubs) == [
        "wipefs --parsable /dev/nvme0n1",
        "wipefs --parsable /dev/nvme1n1",
        f"mdadm --create /dev/md/tritonhost --name=tritonhost --homehost=any --metadata=1.2 --uuid={uuid} --level=0 "
        "--raid-devices=2 /dev/nvme0n1 /dev/nvme1n1",
        "wipefs --quiet --all /dev/md/tritonhost",
        "wipefs --parsable /dev/md/tritonhost",
        "mkfs.xfs -L tritonhost /dev/md/tritonhost",
    ]


@pytest.mark.parametrize(
    ("wipefs", "said"),
    [
        ("echo 0x0,u,l,xfs", "found a signature on /dev/nvme0n1, expected none"),
        ("exit 1", "found nothing that wipefs could read on /dev/nvme0n1, expected its signatures"),
    ],
)
def test_disk_with_a_signature_or_read_error_is_not_touched(stubs: Stubs, wipefs: str, said: str) -> None:
    stubs.add("wipefs", wipefs)
    done = disks(stubs, "create", "file system")
    assert done.returncode == 65
    assert said in done.stderr
    assert done_to_disks(stubs) == ["wipefs --parsable /dev/nvme0n1"]


def test_disk_with_unreadable_ends_is_not_taken_as_empty(stubs: Stubs) -> None:
    # wipefs says nothing of it, and succeeds
    for broken in ("exit 1", 'case "$*" in *skip=11*) exit 1 ;; esac'):
        stubs.add("dd", broken)
        done = disks(stubs, "create", "file system")
        assert done.returncode == 65
        assert "found /dev/nvme0n1 that cannot be read, expected a disk without faults" in done.stderr
        assert done_to_disks(stubs) == []


def written(mebibyte: int, disk: str = "nvme1n1") -> str:
    """dd of disks that hold zeros but for one byte."""
    return (
        f'case "$*" in *of=*) ;; if=/dev/{disk}*skip={mebibyte}\\ *) head -c 1048575 /dev/zero; echo x ;; '
        "*) head -c 1048576 /dev/zero ;; esac"
    )


@pytest.mark.parametrize("level", ["raid0", ""])
@pytest.mark.parametrize("mebibyte", [0, 1, 6, 11])
def test_unsigned_disk_with_data_is_not_touched(stubs: Stubs, mebibyte: int, level: str) -> None:
    stubs.add("dd", written(mebibyte))
    given = {"LEVEL": level, "DISKS": "nvme0n1\nnvme1n1" if level else "nvme1n1"}
    done = disks(stubs, *(("create",) if level else ()), "file system", **given)
    assert done.returncode == 65
    [line] = done.stderr.splitlines()
    assert line.startswith("local disks: found something other than zeros on /dev/nvme1n1, which carries no")
    assert not [call for call in done_to_disks(stubs) if "--parsable" not in call]
    assert not unfinished(stubs).exists()
    # where the inventory says so
    assert disks(stubs, *(("create",) if level else ()), "file system", **given, ERASE="1").returncode == 0
    assert done_to_disks(stubs)[-1].startswith("mkfs.xfs")


def test_unreadable_area_of_a_disk_does_not_count_as_zeros(stubs: Stubs) -> None:
    stubs.add("dd", f'case "$*" in *skip=6\\ *) exit 1 ;; esac; {ZEROS}')
    done = disks(stubs, "create", "file system")
    assert done.returncode == 65
    assert "found something other than zeros on /dev/nvme0n1" in done.stderr


def test_unfinished_disks_may_hold_our_own_data(stubs: Stubs) -> None:
    unfinished(stubs).write_text(f"{BEGUN}\n", "utf-8")
    stubs.add("dd", written(6))
    assert disks(stubs, "clear", "create", "file system").returncode == 0


@pytest.mark.parametrize("where", ["device", "device/nvme3"])
@pytest.mark.parametrize(("by", "taken"), [("pcie", True), ("tcp", False), ("", True)])
def test_network_disk_is_not_touched(stubs: Stubs, by: str, taken: bool, where: str) -> None:
    if by:
        place = stubs.directory / "block/nvme1n1" / where
        place.mkdir(parents=True)
        (place / "transport").write_text(f"{by}\n")
    done = disks(stubs, "create")
    assert (done.returncode == 0) is taken
    assert ("found /dev/nvme1n1, which is reached over tcp" in done.stderr) is not taken
    assert bool([call for call in stubs.calls if call.startswith("mdadm")]) is taken


BEGUN = "c1ce55d8-e085-7a5f-7f19-db441ceb4cea"


def test_unfinished_array_is_stopped_and_cleared(stubs: Stubs) -> None:
    unfinished(stubs).write_text(f"{BEGUN}\n", "utf-8")
    # mdadm had written on the first of the two alone
    member = f"printf '# offset,uuid,label,type\n0x1000,{BEGUN},any:tritonhost,linux_raid_member\n'"
    stubs.add("wipefs", f'case "$*" in "--parsable /dev/nvme0n1") {member} ;; esac')
    held(stubs, "nvme0n1", "md127")
    assert disks(stubs, "clear").returncode == 0
    assert done_to_disks(stubs) == [
        "wipefs --parsable /dev/nvme0n1",
        "wipefs --parsable /dev/nvme1n1",
        "mdadm --stop /dev/md127",
        "wipefs --quiet --all /dev/nvme0n1",
        "wipefs --quiet --all /dev/nvme1n1",
    ]


@pytest.mark.parametrize(
    "signature",
    [
        "0x1000,00000000-e085-7a5f-7f19-db441ceb4cea,any:tritonhost,linux_raid_member",
        f"0x0,{BEGUN},tritonhost,xfs",
        f"0x1000,{BEGUN},any:tritonhost,linux_raid_member\\n0x438,u,mine,ext4",
    ],
)
def test_foreign_signature_written_meanwhile_is_not_cleared(stubs: Stubs, signature: str) -> None:
    unfinished(stubs).write_text(f"{BEGUN}\n", "utf-8")
    stubs.add("wipefs", f"case \"$*\" in *nvme1n1) printf '{signature}\\n' ;; esac")
    done = disks(stubs, "clear", "create")
    assert done.returncode == 65
    assert "found a signature on /dev/nvme1n1 that no run of this tool began, expected none" in done.stderr
    assert not [call for call in done_to_disks(stubs) if "--parsable" not in call]


def test_clear_needs_a_record_and_unused_disks(stubs: Stubs) -> None:
    done = disks(stubs, "clear")
    assert (done.returncode, done_to_disks(stubs)) == (65, [])
    assert "expected the UUID of what was begun" in done.stderr
    unfinished(stubs).write_text(f"{BEGUN}\n", "utf-8")
    held(stubs, "nvme1n1", "md0")
    stubs.add("mdadm", "exit 1")
    done = disks(stubs, "clear")
    assert done.returncode == 65
    assert "found /dev/md0 in use on /dev/nvme0n1 /dev/nvme1n1, expected an array that nobody" in done.stderr
    assert not [call for call in stubs.calls if "--all" in call]


def test_single_disk_is_tracked_by_its_file_system_uuid(stubs: Stubs) -> None:
    stubs.add("mkfs.xfs", f"cp {unfinished(stubs)} {unfinished(stubs)}.seen; exit 1")
    done = disks(stubs, "file system", LEVEL="", DISKS="nvme0n1")
    assert done.returncode == 65
    assert "found exit code 1 of mkfs.xfs on /dev/nvme0n1, expected 0; see the lines above" in done.stderr
    uuid = unfinished(stubs).read_text("utf-8").strip()
    assert stubs.calls[-1] == f"mkfs.xfs -L tritonhost -muuid={uuid} /dev/nvme0n1"
    stubs.add("wipefs", f'case "$*" in --parsable*) echo "0x0,{uuid},tritonhost,xfs" ;; esac')
    assert disks(stubs, "clear", LEVEL="", DISKS="nvme0n1").returncode == 0
    assert stubs.calls[-1] == "wipefs --quiet --all /dev/nvme0n1"


def test_disk_in_use_by_the_kernel_gets_no_array(stubs: Stubs) -> None:
    held(stubs, "nvme1n1", "dm-0")
    done = disks(stubs, "create")
    assert done.returncode == 65
    assert "found dm-0 on /dev/nvme0n1 /dev/nvme1n1, expected disks that nothing is on" in done.stderr
    assert not [call for call in stubs.calls if call.startswith("mdadm")]


def test_array_hidden_from_lsblk_is_stopped_before_assembly(stubs: Stubs) -> None:
    for disk in ("nvme0n1", "nvme1n1"):
        held(stubs, disk, "md127")
    assert disks(stubs, "assemble").returncode == 0
    assert done_to_disks(stubs) == [
        "mdadm --stop /dev/md127",
        "mdadm --assemble /dev/md/tritonhost /dev/nvme0n1 /dev/nvme1n1",
    ]


def test_array_with_a_file_system_is_not_formatted(stubs: Stubs) -> None:
    held(stubs, "nvme0n1", "md127")
    stubs.add("wipefs", "echo 0x0,u,tritonhost,xfs")
    assert disks(stubs, "file system", DEVICE="md127").returncode == 0
    assert done_to_disks(stubs) == ["wipefs --parsable /dev/md127"]


@pytest.mark.parametrize("now", ["md126", "", "dm-0"])
def test_array_under_another_name_is_not_formatted(stubs: Stubs, now: str) -> None:
    if now:
        held(stubs, "nvme0n1", now)
    done = disks(stubs, "file system", DEVICE="md127")
    assert (done.returncode, done_to_disks(stubs)) == (65, [])
    assert f"found {now} on /dev/nvme0n1 /dev/nvme1n1, expected md127 alone" in done.stderr


def test_array_that_lacks_a_disk_is_not_recreated(stubs: Stubs) -> None:
    stubs.add("mdadm", "exit 1")
    done = disks(stubs, "assemble", "file system", "mount", "mark")
    assert done.returncode == 65
    assert "found exit code 1 of mdadm --assemble on /dev/nvme0n1 /dev/nvme1n1, expected" in done.stderr
    assert [call.split()[0] for call in stubs.calls] == ["mdadm"]


def test_mark_needs_a_mount(stubs: Stubs, tmp_path: Path) -> None:
    done = disks(stubs, "mark", DATA_ROOT=str(tmp_path), SENTINEL=".tritonhost-data")
    assert done.returncode == 65
    assert "found nothing mounted at" in done.stderr
    assert list(tmp_path.iterdir()) == [stubs.directory]


@pytest.mark.parametrize(("state", "answer"), [("active", "attached"), ("inactive", "started")])
def test_running_unit_is_attached_to_and_not_restarted(stubs: Stubs, state: str, answer: str) -> None:
    stubs.add("systemctl", f"case $1 in show) echo ActiveState={state} ;; esac")
    stubs.add("journalctl", "echo '-- cursor: s=1;i=2'")
    stubs.add("systemd-run", ":")
    # its directory is made in /run: the steps that write there are played too
    for name in ("mkdir", "rm", "tar"):
        stubs.add(name, "cat >/dev/null" if name == "tar" else ":")
    done = stubs.run(
        host_script("start_work.sh", {"UNIT": "tritonhost-engine-k"}), stdin=archive({"work.sh": ":"})
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == answer
    started = [call for call in stubs.calls if call.startswith("systemd-run")]
    assert bool(started) is (answer == "started")
    assert ("cursor: s=1;i=2" in done.stdout) is (answer == "started")


@pytest.mark.parametrize("starts", [True, False])
def test_start_work_leaves_no_token_without_a_unit(stubs: Stubs, tmp_path: Path, starts: bool) -> None:
    stubs.add("systemctl", "exit 1")
    stubs.add("journalctl", ":")
    stubs.add("systemd-run", f"exit {0 if starts else 1}")
    script = host_script("start_work.sh", {"UNIT": "u"}).replace("/run/tritonhost", str(tmp_path / "run"))
    done = stubs.run(script, stdin=archive({"work.sh": ":", "token": "hf_x", "request.json": "{}"}))
    assert (done.returncode == 0) is starts
    token = tmp_path / "run/u/token"
    assert token.exists() is starts
    if starts:
        assert token.stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "run/u/request.json").stat().st_mode & 0o777 == 0o644


def test_preflight_shows_no_password_of_a_command_line() -> None:
    text = (HOST_SCRIPTS / "preflight.sh").read_text("utf-8")
    function = next(line for line in text.splitlines() if line.startswith("holder()"))
    for argument in ("--setopt=proxy_password=geheim", "https://me:geheim@mirror/x", "--token geheim"):
        sleeper = subprocess.Popen(["sh", "-c", "sleep 20; :", argument])
        try:
            # a program that has just begun has no command line for a moment
            while not Path(f"/proc/{sleeper.pid}/cmdline").read_bytes():
                time.sleep(0.01)
            done = subprocess.run(
                ["sh", "-c", f"{function}\nholder f {sleeper.pid}"], capture_output=True, text=True
            )
        finally:
            sleeper.kill()
            sleeper.wait()
        assert done.stdout.startswith(f"f\t{sleeper.pid}\tsh") and "geheim" not in done.stdout


def test_following_ends_when_the_unit_does(stubs: Stubs) -> None:
    stubs.add(
        "systemctl",
        'case "$*" in *=Job*--value*) echo ;; *--value*) echo dead ;; *) printf "ActiveState=inactive\\nSubState=dead\\nResult=success\\n" ;; esac',
    )
    stubs.add("journalctl", "echo a line; echo '-- cursor: c'")
    variables = {"UNIT": "u", "ENDED": " dead failed ", "WAIT": "20", "CURSOR": "before"}
    done = stubs.run(host_script("follow.sh", variables))
    assert done.stdout.splitlines() == [
        "a line",
        "-- cursor: c",
        "state: ActiveState=inactive SubState=dead Result=success",
    ]
    assert "--after-cursor=before" in stubs.calls[-1]


# --- what is removed


def removed(
    stubs: Stubs, tmp_path: Path, directories: str, images: str = "", mounts: str = "", busy: str = ""
) -> subprocess.CompletedProcess[str]:
    """remove_artifacts.sh on a data root with two weights."""
    for name in ("one", "two"):
        (tmp_path / "data/weights" / name).mkdir(parents=True)
        (tmp_path / "data/weights" / name / "model").write_text("weights", "utf-8")
    (tmp_path / "mounts").write_text(mounts, "utf-8")
    stubs.add("systemctl", f"echo {busy}" if busy else ":")
    given = {"DATA_ROOT": f"{tmp_path}/data", "DIRECTORIES": directories, "IMAGES": images}
    return stubs.run(host_script("remove_artifacts.sh", {**given, "MOUNTS": f"{tmp_path}/mounts"}))


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "data/weights").iterdir()}


def test_removal_touches_only_the_named_directories(stubs: Stubs, tmp_path: Path) -> None:
    done = removed(
        stubs, tmp_path, "weights/one\nweights/.three.partial", mounts=f"9 1 8:1 / {tmp_path} rw - xfs\n"
    )
    assert (done.returncode, done.stderr, left(tmp_path)) == (0, "", {"two"})


@pytest.mark.parametrize("at", ["weights/two", "weights/two/by\\040hand"])
def test_removal_stops_at_a_mount_below(stubs: Stubs, tmp_path: Path, at: str) -> None:
    mounts = f"36 35 0:32 / {tmp_path}/data/{at} rw,relatime - nfs server:/export rw\n"
    done = removed(stubs, tmp_path, "weights/one\nweights/two", mounts=mounts)
    assert done.returncode == 1
    assert (
        f"mounted below {tmp_path}/data/weights/two" in done.stderr and "nothing was removed" in done.stderr
    )
    assert left(tmp_path) == {"one", "two"}


@pytest.mark.parametrize("directory", ["weights", "../data/weights", "/etc/ssl", "weights/.."])
def test_removal_refuses_paths_that_are_not_kind_and_key(
    stubs: Stubs, tmp_path: Path, directory: str
) -> None:
    done = removed(stubs, tmp_path, f"weights/one\n{directory}")
    assert done.returncode == 1 and "expected a directory and a key below" in done.stderr
    assert left(tmp_path) == {"one", "two"}


def test_removal_is_skipped_while_other_work_runs(stubs: Stubs, tmp_path: Path) -> None:
    assert removed(stubs, tmp_path, "weights/one", busy="tritonhost-engine-x").returncode == 0
    assert left(tmp_path) == {"one", "two"}


@pytest.mark.parametrize(
    ("used", "tags", "asked"),
    [
        ("", "tritonhost/serving:k", ["docker rmi --no-prune tritonhost/serving:k nvcr.io/x@sha256:00"]),
        ("", "tritonhost/serving:k\\nnvcr.io/x:24.07", ["docker rmi --no-prune tritonhost/serving:k"]),
        ("f00", "tritonhost/serving:k", []),
    ],
)
def test_only_our_own_image_references_are_removed(
    stubs: Stubs, tmp_path: Path, used: str, tags: str, asked: list[str]
) -> None:
    answers = f"ps) echo {used} ;; image) case $* in *Tags*) printf '{tags}\\n' ;; *) echo nvcr.io/x@sha256:00 ;; esac ;;"
    stubs.add("docker", f"case $1 in {answers} esac")
    assert removed(stubs, tmp_path, "", "tritonhost/serving:k").returncode == 0
    assert [call for call in stubs.calls if call.startswith("docker rmi")] == asked


def test_units_remove_only_labelled_containers() -> None:
    templates = Path(__file__).resolve().parents[2] / "templates"
    for template in templates.glob("*.service.j2"):
        for line in template.read_text("utf-8").splitlines():
            assert "docker rm" not in line or "--filter label=tritonhost." in line, f"{template.name}: {line}"
