"""The scripts of files/host, run under sh on this machine, with the tools of a host played by stubs."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from operations.plan.artifacts import Artifact, ServingImage
from operations.release import switch_script
from operations.scripts import HOST_SCRIPTS, archive, host_script
from tests.unit.stubs import Stubs

SCRIPTS = sorted(HOST_SCRIPTS.glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_host_script_is_valid_shell(path: Path) -> None:
    done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_host_script_is_valid_shell_as_it_is_sent(path: Path) -> None:
    text = host_script(path.name, {"A": "it's; $(reboot)\nline"}, "make_it() {\n:\n}\n")
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not [line for line in text.splitlines() if line.lstrip().startswith("#")]


def test_shellcheck_finds_nothing_where_it_is_installed() -> None:
    checker = shutil.which("shellcheck")
    command = [checker, "--shell=sh", "--severity=error"] if checker else ["sh", "-n"]
    done = [subprocess.run([*command, str(path)], capture_output=True, text=True) for path in SCRIPTS]
    assert [result.stdout for result in done if result.returncode] == []


def test_variables_reach_a_script_as_they_are() -> None:
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


def test_a_finished_artifact_is_readable_by_all_and_writable_by_its_owner_alone(
    tmp_path: Path, stubs: Stubs
) -> None:
    wanted = engine(tmp_path)
    work(stubs, wanted, f'umask 0077; {MAKE}; chmod 666 "$PARTIAL/sub dir/a b"')
    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(wanted.path).rglob("*")}
    assert modes == {"rank0.engine": 0o644, "sub dir": 0o755, "a b": 0o644, "manifest.json": 0o644}


def test_a_tree_without_checksums_has_a_manifest_without_files(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path, checksums=False)
    assert work(stubs, wanted, MAKE).returncode == 0
    assert json.loads((Path(wanted.path) / "manifest.json").read_text("utf-8"))["files"] == {}


def test_an_artifact_of_no_file_is_sealed_too(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    assert work(stubs, wanted, ":").returncode == 0
    assert json.loads((Path(wanted.path) / "manifest.json").read_text("utf-8"))["files"] == {}


@pytest.mark.parametrize("step", ["false", "exit 7", "sh -c 'exit 9'", f"{MAKE}; false; true"])
def test_work_that_fails_leaves_no_artifact(tmp_path: Path, stubs: Stubs, step: str) -> None:
    wanted = engine(tmp_path)
    done = work(stubs, wanted, step)
    assert done.returncode != 0
    assert not Path(wanted.path).exists()
    assert f"failed with exit code {done.returncode}" in done.stdout


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\tb", "a\nb"])
def test_a_file_name_json_would_have_to_escape_is_refused(tmp_path: Path, stubs: Stubs, name: str) -> None:
    wanted = engine(tmp_path)
    (tmp_path / name).write_text("x", "utf-8")
    done = work(stubs, wanted, f'cp {tmp_path}/a?b "$PARTIAL/"')
    assert done.returncode != 0
    assert not Path(wanted.path).exists()


def test_a_file_name_is_not_taken_for_a_format(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    assert work(stubs, wanted, 'printf abc >"$PARTIAL/100%s%n"').returncode == 0
    manifest = json.loads((Path(wanted.path) / "manifest.json").read_text("utf-8"))
    assert manifest["files"]["100%s%n"]["sha256"] == SHA_ABC


def test_the_container_of_the_work_is_removed_before_and_after(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    work(stubs, wanted, "false")
    assert stubs.calls == [f"docker rm --force {wanted.unit}"] * 2


def partial_of(wanted: Artifact) -> Path:
    path = Path(wanted.variables()["PARTIAL"])
    path.mkdir(parents=True)
    (path / "begun").write_text("x", "utf-8")
    return path


@pytest.mark.parametrize(("resumable", "kept"), [(True, {"begun", "new"}), (False, {"new"})])
def test_what_an_interrupted_run_left_is_a_beginning_or_garbage(
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


def test_the_old_artifact_stays_until_the_new_one_is_complete(tmp_path: Path, stubs: Stubs) -> None:
    wanted = engine(tmp_path)
    work(stubs, wanted, 'printf x >"$PARTIAL/old"')
    assert work(stubs, wanted, "exit 3").returncode == 3
    assert {path.name for path in Path(wanted.path).iterdir()} == {"old", "manifest.json"}


def test_an_image_is_no_directory(tmp_path: Path, stubs: Stubs) -> None:
    done = work(stubs, ServingImage({"a": 1}, ()), f"echo made >{tmp_path}/made")
    assert (done.returncode, done.stdout) == (0, "tritonhost: done\n")
    assert (tmp_path / "made").exists()


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
    variables = {"DATA_ROOT": str(root), "RELEASE": name, "VERDICT": verdict, "REASON": reason}
    done = stubs.run(host_script("judge.sh", variables))
    assert (done.returncode, done.stderr) == (0, "")
    return (root / "verdicts" / name).read_text("utf-8")


def links(root: Path) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in root.iterdir() if path.is_symlink()}


def switch(stubs: Stubs, root: Path, name: str) -> subprocess.CompletedProcess[str]:
    return stubs.run(switch_script(str(root), name))


def test_the_first_switch_has_no_previous(stubs: Stubs, data_root: Path) -> None:
    assert switch(stubs, data_root, "one").returncode == 0
    assert links(data_root) == {"current": "releases/one"}


def test_a_switch_remembers_the_release_before_it(stubs: Stubs, data_root: Path) -> None:
    for name in ("one", "two", "two", "three"):
        assert switch(stubs, data_root, name).returncode == 0
        judge(stubs, data_root, name, "proven")
    assert links(data_root) == {"current": "releases/three", "previous": "releases/two"}


def test_a_rollback_is_a_switch(stubs: Stubs, data_root: Path) -> None:
    for name in ("one", "two", "one"):
        switch(stubs, data_root, name)
        judge(stubs, data_root, name, "proven")
    assert links(data_root) == {"current": "releases/one", "previous": "releases/two"}


def test_a_release_that_was_not_proven_never_becomes_the_previous_one(stubs: Stubs, data_root: Path) -> None:
    switch(stubs, data_root, "one")
    judge(stubs, data_root, "one", "proven")
    switch(stubs, data_root, "two")
    judge(stubs, data_root, "two", "failed", "no answer")
    switch(stubs, data_root, "three")
    assert links(data_root) == {"current": "releases/three", "previous": "releases/one"}


def test_taken_back_there_is_nothing_before_the_release_that_serves_again(
    stubs: Stubs, data_root: Path
) -> None:
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


def test_what_was_proven_once_stays_so(stubs: Stubs, data_root: Path) -> None:
    judge(stubs, data_root, "one", "proven")
    assert judge(stubs, data_root, "one", "failed", "its host").startswith("proven ")


def test_a_person_withdraws_what_was_proven_and_proves_it_again(stubs: Stubs, data_root: Path) -> None:
    judge(stubs, data_root, "one", "proven")
    assert judge(stubs, data_root, "one", "withdrawn", "by hand").startswith("withdrawn ")
    assert judge(stubs, data_root, "one", "proven").startswith("proven ")


def test_an_incomplete_release_is_never_pointed_to(stubs: Stubs, data_root: Path) -> None:
    switch(stubs, data_root, "one")
    (data_root / "releases/two/manifest.json").unlink()
    done = switch(stubs, data_root, "two")
    assert done.returncode == 65
    assert "release two: no manifest" in done.stderr
    assert links(data_root) == {"current": "releases/one"}


def test_a_release_that_is_gone_does_not_become_the_previous_one(stubs: Stubs, data_root: Path) -> None:
    switch(stubs, data_root, "one")
    (data_root / "releases/one/manifest.json").unlink()
    assert switch(stubs, data_root, "two").returncode == 0
    assert links(data_root) == {"current": "releases/two"}


def test_links_of_a_switch_that_was_killed_are_cleaned_up(stubs: Stubs, data_root: Path) -> None:
    (data_root / ".current.new.1").symlink_to("releases/one")
    switch(stubs, data_root, "two")
    assert links(data_root) == {"current": "releases/two"}


# --- hold_lock.sh


def lock_script(directory: Path, who: str) -> str:
    return host_script("hold_lock.sh", {"WHO": who, "DIRECTORY": str(directory)})


def test_a_lock_is_held_while_its_input_is_open_and_names_its_holder(tmp_path: Path) -> None:
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


def test_a_server_that_stays_passes_and_another_in_its_place_does_not(stubs: Stubs) -> None:
    variables = {"SERVICE": "triton", "SOAK": "1"}
    stubs.add("sleep", "exit 0")
    stubs.add("docker", "case $3 in *Running*) echo abc true ;; *) echo abc ;; esac")
    assert stubs.run(host_script("soak.sh", variables)).returncode == 0
    for answer in ("echo def true", "echo abc false", "exit 1"):
        stubs.add("docker", f"case $3 in *Running*) {answer} ;; *) echo abc ;; esac")
        done = stubs.run(host_script("soak.sh", variables))
        assert (done.returncode, done.stdout) == (1, "the server ended 1 s after its golden answer\n")


# --- lay_out_release.sh


def test_a_release_is_the_checkout_s_models_with_our_files_over_them(tmp_path: Path, stubs: Stubs) -> None:
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


def grow(stubs: Stubs, *steps: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """grow_root.sh for LVM on a partition, with programs that only say that they were called."""
    for name in ("growpart", "pvresize", "lvextend", "xfs_growfs", "resize2fs", "pgrep"):
        if not (stubs.directory / name).exists():
            stubs.add(name, "exit 1" if name == "pgrep" else "exit 0")
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
    return [call for call in stubs.calls if not call.startswith("pgrep")]


def test_each_layer_is_grown_by_its_own_tool_from_the_disk_upwards(stubs: Stubs) -> None:
    assert grow(stubs, *EVERY_STEP).returncode == 0
    assert grown(stubs) == [
        "growpart /dev/nvme0n1 3",
        "pvresize /dev/nvme0n1p3",
        "lvextend --extents +100%FREE /dev/mapper/ocivolume-root",
        "xfs_growfs /",
    ]


def test_only_what_was_left_undone_is_grown(stubs: Stubs) -> None:
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
def test_a_layer_that_does_not_grow_ends_it(stubs: Stubs, program: str, code: int, said: str) -> None:
    stubs.add(program, f"exit {code}")
    done = grow(stubs, *EVERY_STEP)
    assert done.returncode == 65
    assert done.stderr.startswith(f"root file system: {said}")
    assert grown(stubs)[-1].startswith(program)


def test_a_partition_that_another_program_grew_meanwhile_is_no_failure(stubs: Stubs) -> None:
    stubs.add("growpart", "exit 1")
    assert grow(stubs, *EVERY_STEP).returncode == 0
    assert grown(stubs)[-1] == "xfs_growfs /"


def test_another_growth_at_work_is_waited_for_and_then_named(stubs: Stubs, tmp_path: Path) -> None:
    stubs.add("sleep", f"touch {tmp_path}/slept")
    stubs.add(
        "pgrep",
        f'case "$*" in *oci-growfs) [ -e {tmp_path}/slept ] && exit 1; echo 4711 ;; *) exit 1 ;; esac',
    )
    assert grow(stubs, *EVERY_STEP).returncode == 0
    stubs.add("pgrep", "echo 4711")
    done = grow(stubs, "file system", GROWFS_SECONDS="4")
    assert done.returncode == 65
    assert "found process 4711, which grows it, still at work after 4 s" in done.stderr
    assert stubs.calls[-1].startswith("pgrep")


def test_a_program_that_is_not_there_is_named_before_anything_is_grown(stubs: Stubs) -> None:
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


def disks(stubs: Stubs, *steps: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """local_disks.sh for two disks, with tools that only say that they were called."""
    for name in ("mdadm", "mkfs.xfs", "wipefs", "lsblk", "systemctl", "dd", "sync"):
        if not (stubs.directory / name).exists():
            stubs.add(name, "exit 0")
    stubs.add("blockdev", "echo 8388608")
    variables = {"STEPS": "\n".join(steps), "LEVEL": "raid0", "DISKS": "nvme0n1\nnvme1n1", "DEVICE": ""}
    names = {"LABEL": "tritonhost", "ARRAY": "/dev/md/tritonhost", "UNFINISHED": str(unfinished(stubs))}
    script = host_script("local_disks.sh", {**variables, **names, **changed})
    return stubs.run(script.replace("/sys/class/block", str(stubs.directory / "block")))


def unfinished(stubs: Stubs) -> Path:
    """Where a run writes what it begins."""
    return stubs.directory / "unfinished"


def held(stubs: Stubs, disk: str, holder: str) -> None:
    (stubs.directory / "block" / disk / "holders" / holder).mkdir(parents=True)


def done_to_disks(stubs: Stubs) -> list[str]:
    """But for reading their two ends, and for writing through."""
    return [call for call in stubs.calls if call.split()[0] not in ("blockdev", "dd", "sync")]


def test_an_array_is_made_of_disks_that_carry_nothing_and_nothing_is_forced(stubs: Stubs) -> None:
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
def test_a_disk_that_carries_something_or_cannot_be_read_is_not_touched(
    stubs: Stubs, wipefs: str, said: str
) -> None:
    stubs.add("wipefs", wipefs)
    done = disks(stubs, "create", "file system")
    assert done.returncode == 65
    assert said in done.stderr
    assert done_to_disks(stubs) == ["wipefs --parsable /dev/nvme0n1"]


def test_a_disk_whose_ends_cannot_be_read_is_not_taken_for_an_empty_one(stubs: Stubs) -> None:
    # wipefs says nothing of it, and succeeds
    for broken in ("exit 1", 'case "$*" in *skip=7*) exit 1 ;; esac'):
        stubs.add("dd", broken)
        done = disks(stubs, "create", "file system")
        assert done.returncode == 65
        assert "found /dev/nvme0n1 that cannot be read, expected a disk without faults" in done.stderr
        assert done_to_disks(stubs) == []


BEGUN = "c1ce55d8-e085-7a5f-7f19-db441ceb4cea"


def test_what_a_run_began_and_did_not_finish_is_cleared_whatever_shows_through(stubs: Stubs) -> None:
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
def test_what_another_wrote_meanwhile_is_not_cleared(stubs: Stubs, signature: str) -> None:
    unfinished(stubs).write_text(f"{BEGUN}\n", "utf-8")
    stubs.add("wipefs", f"case \"$*\" in *nvme1n1) printf '{signature}\\n' ;; esac")
    done = disks(stubs, "clear", "create")
    assert done.returncode == 65
    assert "found a signature on /dev/nvme1n1 that no run of this tool began, expected none" in done.stderr
    assert not [call for call in done_to_disks(stubs) if "--parsable" not in call]


def test_nothing_is_cleared_without_a_word_of_what_was_begun_or_while_it_is_used(stubs: Stubs) -> None:
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


def test_one_disk_alone_is_known_by_its_file_system_s_uuid_until_it_is_made(stubs: Stubs) -> None:
    stubs.add("mkfs.xfs", f"cp {unfinished(stubs)} {unfinished(stubs)}.seen; exit 1")
    done = disks(stubs, "file system", LEVEL="", DISKS="nvme0n1")
    assert done.returncode == 65
    assert "found exit code 1 of mkfs.xfs on /dev/nvme0n1, expected 0; see the lines above" in done.stderr
    uuid = unfinished(stubs).read_text("utf-8").strip()
    assert stubs.calls[-1] == f"mkfs.xfs -L tritonhost -muuid={uuid} /dev/nvme0n1"
    stubs.add("wipefs", f'case "$*" in --parsable*) echo "0x0,{uuid},tritonhost,xfs" ;; esac')
    assert disks(stubs, "clear", LEVEL="", DISKS="nvme0n1").returncode == 0
    assert stubs.calls[-1] == "wipefs --quiet --all /dev/nvme0n1"


def test_no_array_is_made_of_a_disk_that_the_kernel_says_is_in_use(stubs: Stubs) -> None:
    held(stubs, "nvme1n1", "dm-0")
    done = disks(stubs, "create")
    assert done.returncode == 65
    assert "found dm-0 on /dev/nvme0n1 /dev/nvme1n1, expected disks that nothing is on" in done.stderr
    assert not [call for call in stubs.calls if call.startswith("mdadm")]


def test_an_array_that_lsblk_leaves_out_is_stopped_before_it_is_assembled(stubs: Stubs) -> None:
    for disk in ("nvme0n1", "nvme1n1"):
        held(stubs, disk, "md127")
    assert disks(stubs, "assemble").returncode == 0
    assert done_to_disks(stubs) == [
        "mdadm --stop /dev/md127",
        "mdadm --assemble /dev/md/tritonhost /dev/nvme0n1 /dev/nvme1n1",
    ]


def test_an_array_that_holds_a_file_system_is_not_formatted(stubs: Stubs) -> None:
    stubs.add("wipefs", "echo 0x0,u,tritonhost,xfs")
    assert disks(stubs, "file system", DEVICE="md127").returncode == 0
    assert done_to_disks(stubs) == ["wipefs --parsable /dev/md127"]


def test_an_array_that_lacks_a_disk_is_not_made_anew(stubs: Stubs) -> None:
    stubs.add("mdadm", "exit 1")
    done = disks(stubs, "assemble", "file system", "mount", "mark")
    assert done.returncode == 65
    assert "found exit code 1 of mdadm --assemble on /dev/nvme0n1 /dev/nvme1n1, expected" in done.stderr
    assert [call.split()[0] for call in stubs.calls] == ["mdadm"]


def test_nothing_is_marked_where_nothing_is_mounted(stubs: Stubs, tmp_path: Path) -> None:
    done = disks(stubs, "mark", DATA_ROOT=str(tmp_path), SENTINEL=".tritonhost-data")
    assert done.returncode == 65
    assert "found nothing mounted at" in done.stderr
    assert list(tmp_path.iterdir()) == [stubs.directory]


@pytest.mark.parametrize(("state", "answer"), [("active", "attached"), ("inactive", "started")])
def test_a_unit_that_runs_is_attached_to_and_not_started_again(stubs: Stubs, state: str, answer: str) -> None:
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


def test_following_ends_when_the_unit_does(stubs: Stubs) -> None:
    stubs.add(
        "systemctl",
        'case "$*" in *--value*) echo dead ;; *) printf "ActiveState=inactive\\nSubState=dead\\nResult=success\\n" ;; esac',
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
