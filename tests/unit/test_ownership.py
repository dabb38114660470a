"""Whose the files are that root runs or the server reads: seen by the probe's own text, and taken back by the script."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from operations.facts.host_state import HostState
from operations.facts.ownership import Exposed
from operations.facts.parse import permissions
from operations.plan import ownership
from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.difference import difference
from operations.plan.errors import PlanError
from operations.plan.machine.local_disks import check_data_root, data_root
from operations.plan.observed.observed import DataRoot
from operations.plan.permissions import Permissions
from operations.scripts import host_functions, host_script
from tests.unit.builders import FILES, converged, release
from tests.unit.stubs import Stubs, make_artifact

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="root alone gives files away")

SOMEBODY = 1234


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path / "bin")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with one artifact of each kind, a release among them, and files of ours outside of it."""
    root = tmp_path / "data root"
    for directory in DIRECTORIES.values():
        make_artifact(root / directory / "k")
    for name in ("images", "verdicts", "measurements"):
        (root / name).mkdir()
        (root / name / "k").write_text("x\n", "utf-8")
    (root / "database").mkdir(mode=0o700)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/triton.service").write_text("unit", "utf-8")
    (tmp_path / "etc/triton.service.d").mkdir()
    (tmp_path / "etc/triton.service.d/own.conf").write_text("own", "utf-8")
    for path in [root, *root.rglob("*"), *(tmp_path / "etc").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    (root / "database").chmod(0o700)
    return root


def unit_of(root: Path) -> Path:
    return root.parent / "etc/triton.service"


def exposed(root: Path, stubs: Stubs) -> dict[str, str]:
    """As the operation's fact has it, mode:user:group; the same as the probe's."""
    files = [str(unit_of(root))]
    done = stubs.run(Exposed().command(str(root), files, files))
    assert (done.returncode, done.stderr) == (0, "")
    found = Exposed().process(done.stdout.splitlines())
    for name in ("rpm", "docker", "systemctl", "nvidia-smi", "curl"):
        stubs.add(name, "exit 1")
    asked = HostState().command(
        data_root=str(root),
        state_root=str(root),
        service="s",
        packages=[],
        files=files,
        unit_files=files,
        units=[],
        urls=[],
    )
    assert HostState().process(stubs.run(asked).stdout.split("\n")[:-1]).exposed == found
    return {path.removeprefix(f"{root.parent}/"): str(value) for path, value in found.items()}


def take_back(root: Path, stubs: Stubs) -> str:
    given = {
        "DATA_ROOT": str(root),
        **ownership.variables(str(root), [str(unit_of(root))], [str(unit_of(root))]),
    }
    done = stubs.run(host_script("take_back.sh", given, host_functions("ownership.sh")))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_probe_finds_nothing_exposed_on_a_good_host(root: Path, stubs: Stubs) -> None:
    (root / "releases/k/link").symlink_to("a file")
    (root / "engines/.x.partial").mkdir(mode=0o770)
    assert exposed(root, stubs) == {}


@pytest.mark.parametrize(
    ("user", "mode"), [(SOMEBODY, None), (0, 0o666), (0, 0o664), (0, 0o600), (0, 0o4755), (0, 0o1777)]
)
@pytest.mark.slow
def test_probe_finds_files_that_others_own_or_may_write(
    root: Path, stubs: Stubs, user: int, mode: int | None
) -> None:
    wanted = {}
    for kind in ("weights", "releases"):
        for place in ("", "k", "k/b", "k/a file", "k/manifest.json"):
            path = root / kind / place
            os.chown(path, user, 0)
            if mode is not None:
                path.chmod(mode)  # which a change of the owner would take setuid away from
            wanted[str(path.relative_to(root.parent))] = f"{path.stat().st_mode & 0o7777:o}:{user}:0"
    assert exposed(root, stubs) == wanted
    take_back(root, stubs)
    assert exposed(root, stubs) == {}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["", "k", "k/b", "k/a file", "k/manifest.json"])
def test_probe_finds_one_thing_among_good_ones(root: Path, stubs: Stubs, place: str) -> None:
    path = root / "weights" / place
    path.chmod(0o777)
    assert exposed(root, stubs) == {str(path.relative_to(root.parent)): "777:0:0"}
    take_back(root, stubs)
    assert exposed(root, stubs) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["data root", "data root/database", "data root/images", "data root/verdicts/k"]
)
def test_probe_finds_directories_and_records(root: Path, stubs: Stubs, name: str) -> None:
    path = root.parent / name
    path.chmod(0o777)
    assert exposed(root, stubs) == {name: "777:0:0"}
    take_back(root, stubs)
    assert exposed(root, stubs) == {}
    assert path.exists() is name.endswith(("root", "database"))


@pytest.mark.slow
def test_probe_finds_a_unit_and_its_drop_in_files(root: Path, stubs: Stubs) -> None:
    unit = unit_of(root)
    os.chown(unit, SOMEBODY, SOMEBODY)
    (unit.parent / "triton.service.d/own.conf").chmod(0o666)
    found = exposed(root, stubs)
    assert found == {"etc/triton.service": "644:1234:1234", "etc/triton.service.d/own.conf": "666:0:0"}
    full = permissions(f"{root.parent}/{path}\t{value}" for path, value in found.items())
    mine, others = ownership.repaired(str(root), [str(unit)], full)
    assert (mine, others) == ([str(unit)], [f"{unit}.d/own.conf"])
    take_back(root, stubs)
    # a site's own is not blessed unseen
    assert set(exposed(root, stubs)) == {"etc/triton.service.d/own.conf"}


def test_take_back_removes_a_link_in_place_of_a_file(root: Path, stubs: Stubs) -> None:
    unit, elsewhere = unit_of(root), root.parent / "elsewhere"
    unit.rename(elsewhere)
    unit.symlink_to(elsewhere)
    assert exposed(root, stubs) == {"etc/triton.service": "link:0:0"}
    take_back(root, stubs)
    assert not unit.is_symlink() and elsewhere.read_text("utf-8") == "unit"


def test_take_back_keeps_unchanged_files(root: Path, stubs: Stubs) -> None:
    os.chown(root / "weights/k/a file", SOMEBODY, 0)
    assert take_back(root, stubs) == ""
    assert (root / "weights/k/manifest.json").exists()


@pytest.mark.parametrize("kind", ["weights", "releases"])
def test_take_back_invalidates_a_changed_artifact(root: Path, stubs: Stubs, kind: str) -> None:
    file, manifest = root / kind / "k/a file", root / kind / "k/manifest.json"
    before = file.stat()
    file.write_text("A file", "utf-8")
    os.utime(file, (before.st_atime, before.st_mtime))
    file.chmod(0o666)
    assert "found a file" in take_back(root, stubs)
    assert not manifest.exists()
    assert (root / "engines/k/manifest.json").exists()


def test_take_back_distrusts_a_manifest_that_others_own(root: Path, stubs: Stubs) -> None:
    manifest = root / "releases/k/manifest.json"
    os.chown(manifest, SOMEBODY, 0)
    (root / "releases/k/a file").chmod(0o666)
    take_back(root, stubs)
    assert not manifest.exists()


def test_take_back_invalidates_an_artifact_with_extra_files(root: Path, stubs: Stubs) -> None:
    directory = root / "weights/k/b"
    (directory / "more").write_text("x", "utf-8")
    os.chown(directory, SOMEBODY, 0)
    assert "found b/more changed" in take_back(root, stubs)
    assert not (root / "weights/k/manifest.json").exists()


@pytest.mark.parametrize("indent", [None, 1])
def test_take_back_reads_a_manifest_as_json(root: Path, stubs: Stubs, indent: int | None) -> None:
    """However it is written: another order of keys, or other white space, is no change."""
    manifest = root / "weights/k/manifest.json"
    document = json.loads(manifest.read_text("utf-8"))
    document["files"] = {n: dict(reversed(list(e.items()))) for n, e in document["files"].items()}
    assert document["files"]
    manifest.write_text(json.dumps(document, indent=indent), "utf-8")
    (root / "weights/k/a file").chmod(0o666)
    assert take_back(root, stubs) == ""
    assert manifest.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": [1]}', '{"files": {"a file": {"sha256": "0"}}}'])
def test_take_back_treats_an_invalid_manifest_as_changed(root: Path, stubs: Stubs, text: str) -> None:
    manifest = root / "weights/k/manifest.json"
    manifest.write_text(text, "utf-8")
    (root / "weights/k/a file").chmod(0o666)
    assert "manifest.json changed" in take_back(root, stubs)
    assert not manifest.exists()


def test_take_back_invalidates_an_exposed_checkout(root: Path, stubs: Stubs) -> None:
    (root / "sources/k/manifest.json").write_text('{"kind": "source", "files": {}}\n', "utf-8")
    (root / "sources/k/a file").chmod(0o666)
    take_back(root, stubs)
    assert not (root / "sources/k/manifest.json").exists()


def test_fact_searches_deeper_than_the_probe(root: Path, stubs: Stubs) -> None:
    deep = root / "sources/k/b/rank0.engine"
    deep.chmod(0o666)
    given = {"DATA_ROOT": str(root), **ownership.variables(str(root), [], [])}
    assert stubs.run(host_script("ownership.sh", given) + "IFS='\n'\nexposed").stdout == ""
    found = stubs.run(Exposed().command(str(root), [], [])).stdout
    assert found == f"{deep}\t666:0:0\n"


def test_take_back_restores_missing_read_permissions(root: Path, stubs: Stubs) -> None:
    (root / "engines/k/a file").chmod(0o000)
    (root / "engines/k/b").chmod(0o700)
    assert take_back(root, stubs) == ""
    assert (root / "engines/k/manifest.json").exists()
    assert (root / "engines/k/b").stat().st_mode & 0o777 == 0o755


def test_difference_has_a_row_of_each_up_to_a_limit() -> None:
    wanted = release()
    path = f"{wanted.path}/serve"
    found = replace(converged(wanted), exposed={path: Permissions("666", "1000", "0")})
    [row] = difference(wanted, found, FILES)
    assert (row.stage, row.what, row.found) == ("ownership", path, "mode 666 of user 1000, group 0")
    many = {f"/x/\x1b[2J{number:03}": Permissions("666", "0", "0") for number in range(100)}
    rows = difference(wanted, replace(found, exposed=many), FILES)
    assert len(rows) == ownership.ROWS + 1
    assert rows[-1].what == f"{100 - ownership.ROWS} more"
    assert "\x1b" not in "".join(row.what for row in rows)


# --- where the data root may be


def look(path: Path, stubs: Stubs) -> DataRoot:
    done = stubs.run(f"DATA_ROOT='{path}'\n{host_functions('disks.sh')}\ndata_root")
    return data_root(done.stdout.splitlines())


@pytest.mark.parametrize(
    ("directory", "user", "mode"),
    [("a", SOMEBODY, 0o755), ("a", 0, 0o777), ("a", 0, 0o775), ("a/b", SOMEBODY, 0o700), ("a/b", 0, 0o1777)],
)
def test_check_data_root_refuses_directories_of_others(
    tmp_path: Path, stubs: Stubs, directory: str, user: int, mode: int
) -> None:
    path = tmp_path / "a/b"
    path.mkdir(parents=True)
    check_data_root(str(path), look(path, stubs))
    (tmp_path / directory).chmod(mode)
    os.chown(tmp_path / directory, user, 0)
    with pytest.raises(PlanError, match="chown root") as refused:
        check_data_root(str(path), look(path, stubs))
    assert f"user {user}, mode {mode:o} at /" in str(refused.value)
    assert f"chown root {tmp_path / directory} && chmod go-w {tmp_path / directory}" in str(refused.value)


def test_check_data_root_accepts_a_sticky_parent(tmp_path: Path, stubs: Stubs) -> None:
    (tmp_path / "sticky/root").mkdir(parents=True)
    (tmp_path / "sticky").chmod(0o1777)
    path = tmp_path / "sticky/root/data"
    check_data_root(str(path), look(path, stubs))
    # where somebody else could make it first
    with pytest.raises(PlanError):
        check_data_root(f"{tmp_path}/sticky/other", look(tmp_path / "sticky/other", stubs))


def test_check_data_root_leaves_its_own_to_the_repair(tmp_path: Path, stubs: Stubs) -> None:
    path = tmp_path / "a/b"
    path.mkdir(parents=True)
    path.chmod(0o777)
    check_data_root(str(path), look(path, stubs), ours=True)
    path.parent.chmod(0o777)
    with pytest.raises(PlanError):
        check_data_root(str(path), look(path, stubs), ours=True)


def test_fixture_manifest_is_in_the_format_of_seal(root: Path) -> None:
    assert json.loads((root / "engines/k/manifest.json").read_text("utf-8"))["files"]["a file"]["size"] == 6
