import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.exceptions import FactProcessError

from operations.facts.host_state import (
    HostState,
    file_problem,
    measurements,
    observed,
    package_versions,
    read_manifest,
)
from operations.facts.parse import digest_pairs, permissions, sections
from operations.plan.artifacts.artifact import DIRECTORIES, artifact_path
from operations.plan.difference import difference
from operations.plan.machine.disks import FILE_SYSTEM, LOGICAL, PARTITION, VOLUME, root_growth
from operations.plan.observed.observed import (
    DatabaseContents,
    GuardRules,
    LoadedGateway,
    Measurements,
    Outcome,
    ReleaseVerdict,
)
from operations.plan.permissions import Permissions
from tests.unit import probe_output
from tests.unit.builders import FILES, converged, gpu, release
from tests.unit.stubs import Stubs


def test_converged_output_reads_as_a_converged_host() -> None:
    wanted = release()
    host = converged(wanted)
    found = observed(probe_output.converged(wanted, host))
    assert difference(wanted, found, FILES) == []
    assert (found.container, found.release_manifest) == (host.container, host.release_manifest)
    assert found.gpus == (gpu(),)


def test_login_shell_output_is_kept_as_noise() -> None:
    assert observed(["Welcome  to", "this host", *probe_output.bare()]).noise == "Welcome to this host"
    assert observed(probe_output.bare()).noise == ""


def test_bare_host_output_is_parsed() -> None:
    found = observed(probe_output.bare())
    assert (found.os_major, found.architecture) == ("9", "x86_64")
    assert found.os_release["NAME"] == "Oracle Linux Server"
    assert found.packages == {"runc": ("4:1.2.5-3.el9_6",), "git": ("0:2.47.3-1.el9_6",)}
    assert (found.root.source, found.root.type) == ("/dev/mapper/ocivolume-root", "xfs")
    assert (found.root.size, found.root.disk_size) == (38684065792, 107374182400)
    assert root_growth(found.root) == (PARTITION, VOLUME, LOGICAL, FILE_SYSTEM)
    assert (found.data_root.mount, found.data_root.type) == ("/", "xfs")
    assert (found.current, found.previous, found.container) == ("", "", None)
    assert (found.artifacts, found.images, found.daemon_json) == ({}, {}, "")
    assert found.ready == {"http://127.0.0.1:8000/v2/models/ensemble/ready": "000"}


@pytest.mark.parametrize("count", [0, 1, 10, -1])
def test_truncated_output_fails_only_its_host(count: int) -> None:
    with pytest.raises(FactProcessError, match="could not be read"):
        HostState().process(probe_output.bare()[:count])


@pytest.mark.parametrize("end", ["end-docker", "end-services"])
def test_lane_that_was_cut_is_truncated_output(end: str) -> None:
    output = [line for line in probe_output.bare() if line != f"{probe_output.SECTION}{end}"]
    with pytest.raises(FactProcessError, match="ends early"):
        HostState().process(output)


@pytest.mark.parametrize(
    ("section", "content"),
    [
        ("container", ["{"]),
        ("container", ['{"Id": "x"}']),
        (
            "manifests",
            [
                "\x1f/data/engines/k/manifest.json",
                '{"kind": "engine", "key": "k", "inputs": {}, "files": []}',
            ],
        ),
        (
            "manifests",
            ["\x1f/data/engines/k/manifest.json", '{"kind": 1, "key": "k", "inputs": {}, "files": {}}'],
        ),
        (
            "manifests",
            [
                "\x1f/data/engines/k/manifest.json",
                '{"kind": "engine", "key": "k", "inputs": {}, "files": {"a": 1}}',
            ],
        ),
    ],
)
def test_unreadable_output_fails_only_its_host(section: str, content: list[str]) -> None:
    # pyinfra takes a FactProcessError for this host's failure; anything else ends the run of all of them
    sizes = ["/data/engines/k/a\t1\t1"]
    try:
        found = HostState().process(probe_output.lines({section: content, "sizes": sizes}))
    except FactProcessError as error:
        assert "could not be read" in str(error)
    else:
        assert ("engine", "k") not in found.artifacts


def test_broken_driver_gives_no_gpu_and_keeps_its_message() -> None:
    message = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    found = observed(probe_output.lines({"gpus": [message]}))
    assert found.gpus == ()
    assert "communicate" in found.gpu_problem


@pytest.mark.parametrize(
    ("smi", "gpus", "problem"),
    [
        (f"echo 'cannot load libx: failed' >&2; echo '{probe_output.GPU}'", 1, ""),
        (
            "echo 'error while loading shared libraries: libc' >&2; exit 127",
            0,
            "error while loading shared libraries",
        ),
        ("echo 'No devices were found'; exit 6", 0, "No devices were found"),
    ],
)
def test_nvidia_smi_stderr_is_read_only_without_output(
    stubs: Stubs, smi: str, gpus: int, problem: str
) -> None:
    stubs.add("nvidia-smi", smi)
    asked = HostState().command(
        data_root="/nowhere",
        state_root="/nowhere",
        service="s",
        packages=[],
        files=[],
        unit_files=[],
        units=[],
        urls=[],
    )
    found = observed(stubs.run(asked).stdout.split("\n"))
    assert len(found.gpus) == gpus
    assert problem in found.gpu_problem and bool(problem) is bool(found.gpu_problem)


ODD = "WARNING: something that no tool of today says"
CONTAINER = (
    '{"Id": "f", "State": {"Running": true, "StartedAt": "t"}, "Image": "i", "Config": {"Labels": null}}'
)


@pytest.mark.parametrize(
    ("section", "content"),
    [
        ("container", [CONTAINER]),
        ("listening", ["0100007F:1F40"]),
        ("detached", ["tritonhost-engine-k.service loaded active running"]),
        ("local-disks", ["{", '   "blockdevices": []', "}", "read\tnvme0n1"]),
        ("packages", ["git\t0:2.47.3-1.el9_6"]),
        ("images", ["tritonhost/serving:k\tsha256:0"]),
        ("gpus", [probe_output.GPU]),
        ("units", ["Id=a.service", "ActiveState=active"]),
        ("resources", ["memory\t1024", "free\t2048"]),
    ],
)
def test_unknown_line_changes_nothing_else(section: str, content: list[str]) -> None:
    before = observed(probe_output.lines({section: content}))
    assert before != observed(probe_output.lines({}))
    for said in ([ODD, *content], [*content, ODD]):
        found = observed(probe_output.lines({section: said}))
        assert replace(found, gpu_remarks=()) == before, said


def test_links_name_the_releases_they_point_to() -> None:
    found = observed(probe_output.lines({"links": ["current\treleases/a", "previous\treleases/b"]}))
    assert (found.current, found.previous) == ("a", "b")


def test_units_are_separated_by_empty_lines() -> None:
    found = observed(
        probe_output.lines({"units": ["Id=a.service", "ActiveState=active", "", "Id=b.service"]})
    )
    assert found.units == {
        "a.service": {"Id": "a.service", "ActiveState": "active"},
        "b.service": {"Id": "b.service"},
    }


def test_detached_units_by_name() -> None:
    found = observed(
        probe_output.lines({"detached": ["tritonhost-engine-k.service loaded active running x", ""]})
    )
    assert found.detached_units == ("tritonhost-engine-k.service",)


@pytest.mark.parametrize(
    ("line", "outcome", "rejected"),
    [
        ("proven 2026-11-21T04:00:10Z ", Outcome.PROVEN, False),
        ("failed 2026-11-21T04:00:10Z its answer: another one", Outcome.FAILED, True),
        ("withdrawn 2026-11-21T04:00:10Z rolled back by hand", Outcome.WITHDRAWN, True),
        ("provenly", None, False),
    ],
)
def test_verdict_keeps_its_line(line: str, outcome: Outcome | None, rejected: bool) -> None:
    found = observed(probe_output.lines({"verdicts": [f"a\t{line}", "b\t"]})).verdicts
    assert found == {"a": ReleaseVerdict(outcome, line)}
    assert found["a"].rejected is rejected


def test_records_are_read_once() -> None:
    digest = "a" * 64
    output = {
        "gateway": [f"key {digest}", ""],
        "gateway-modes": ["/d/gateway\t750:0:60601"],
        "owners": ["/etc/a b\t666:1000:0", "/etc/l\tlink:0:0"],
        "guard": [digest],
        "database": ["version\t", "vectors:a\t8", "vectors:b\t?"],
    }
    found = observed(probe_output.lines(output))
    assert found.gateway == LoadedGateway("key", digest)
    assert found.gateway_modes == {"/d/gateway": Permissions("750", "0", "60601")}
    assert found.exposed == {
        "/etc/a b": Permissions("666", "1000", "0"),
        "/etc/l": Permissions("link", "0", "0"),
    }
    assert found.guard == GuardRules(digest)
    assert found.database == DatabaseContents(None, {"a": 8})
    assert found.selinux is None
    changed = observed(probe_output.lines({"guard": ["changed"]}))
    assert changed.guard == GuardRules(changed=True)


def test_permissions_of_an_odd_path_are_shown() -> None:
    assert permissions(["/a\tb\t666:0:0"]) == {"/a": Permissions("b\t666", "0", "0")}
    assert permissions(["/a\t", "nothing"]) == {"/a": Permissions("", "?", "?")}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("load_s=12.5 answer_s=0.25 gpu_mib=4096", Measurements(12.5, 0.25, 4096)),
        ("gpu_mib=4096 other=1", Measurements(gpu_mib=4096)),
        (
            "bench_first_ms=12.5 bench_rate=890.1 bench_of=smoke-1",
            Measurements(bench_first_ms=12.5, bench_rate=890.1, bench_of="smoke-1"),
        ),
        ("load_s=? answer_s= gpu_mib=inf word", Measurements()),
        ("", Measurements()),
    ],
)
def test_measurements_are_numbers_or_not_known(line: str, wanted: Measurements) -> None:
    assert measurements(line) == wanted
    found = observed(probe_output.lines({"measurements": [f"a\t{line}"]}))
    assert found.measurements == {"a": wanted}


def stored(manifest: str, sizes: list[str], place: str = "/data/engines/k") -> Any:
    output = {"manifests": [f"\x1f{place}/manifest.json", manifest], "sizes": sizes}
    return observed(probe_output.lines(output)).artifacts


ENTRY = {"size": 3, "mtime": 1700000000, "sha256": "0" * 64}
GOOD = probe_output.manifest("engine", "k", {"gpu": "A10"}, {"rank0.engine": ENTRY})


@pytest.mark.parametrize(
    ("sizes", "problem"),
    [
        (["/data/engines/k/rank0.engine\t3\t1700000000", "/data/engines/k/manifest.json\t9\t1"], ""),
        ([], "rank0.engine is missing"),
        (["/data/engines/other/rank0.engine\t3\t1700000000"], "rank0.engine is missing"),
        (["/data/engines/k/rank0.engine\t2\t1700000000"], "rank0.engine has 2 bytes instead of 3"),
        (["/data/engines/k/rank0.engine\t3\t1700000001"], "rank0.engine was changed after it was made"),
    ],
)
def test_artifact_files_are_compared_with_the_manifest(sizes: list[str], problem: str) -> None:
    artifact = stored(GOOD, sizes)["engine", "k"]
    assert (artifact.problem, artifact.inputs) == (problem, {"gpu": "A10"})


@pytest.mark.parametrize(
    ("manifest", "place"),
    [
        (GOOD[:-1], "/data/engines/k"),
        ("", "/data/engines/k"),
        ("[]", "/data/engines/k"),
        ("{}", "/data/engines/k"),
        # copied by hand: a manifest speaks for the directory it was written in
        (GOOD, "/data/engines/other"),
        (GOOD, "/data/checkpoints/k"),
    ],
)
def test_invalid_manifest_gives_no_artifact(manifest: str, place: str) -> None:
    assert stored(manifest, [], place) == {}


def test_sections_are_found_after_other_output() -> None:
    assert sections(["a banner", "\x1ea", "1", "2", "\x1eb"]) == {"a": ["1", "2"], "b": []}


def test_several_versions_of_one_package() -> None:
    assert package_versions(["kernel\t0:1-1", "kernel\t0:2-1", "package x is not installed"]) == {
        "kernel": ("0:1-1", "0:2-1")
    }


def test_digests_of_files_with_spaces() -> None:
    digest = "a" * 64
    assert digest_pairs([f"{digest}  ./a b", f"{digest} *c", "sha256sum: d: No such file"]) == [
        (digest, "./a b"),
        (digest, "c"),
    ]


@pytest.mark.parametrize("text", ["", "null", "5", '"x"', "{}", '{"kind": "a"}'])
def test_invalid_manifest_is_none(text: str) -> None:
    assert read_manifest(text) is None


@pytest.mark.requirement("M42")
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("rank0.engine", {"sha256": "0" * 63}),
        ("rank0.engine", {"sha256": "0" * 65}),
        ("rank0.engine", {"sha256": "G" * 64}),
        ("rank0.engine", {"sha256": 0}),
        ("rank0.engine", {"size": -1}),
        ("rank0.engine", {"size": "3"}),
        ("rank0.engine", {"size": True}),
        ("/etc/passwd", {}),
        ("../k2/rank0.engine", {}),
        ("a/../../b", {}),
        ("", {}),
    ],
)
def test_m42_manifest_with_foreign_values_is_none(name: str, changed: dict[str, object]) -> None:
    assert read_manifest(GOOD) is not None
    bad = probe_output.manifest("engine", "k", {}, {"rank1.engine": ENTRY, name: {**ENTRY, **changed}})
    assert read_manifest(bad) is None
    assert stored(bad, []) == {}, "the artifact is made again"


@pytest.mark.requirement("M42")
@pytest.mark.parametrize("key", ["size", "sha256", "mtime"])
def test_m42_incomplete_manifest_entry_is_none(key: str) -> None:
    entry = {name: value for name, value in ENTRY.items() if name != key}
    assert read_manifest(probe_output.manifest("engine", "k", {}, {"rank0.engine": entry})) is None
    assert read_manifest('{"kind": "a", "key": "k", "inputs": {}, "files": {"f": "not a table"}}') is None


@pytest.mark.requirement("M42")
def test_m42_missing_file_of_a_manifest_is_a_problem() -> None:
    assert stored(GOOD, [])["engine", "k"].problem == "rank0.engine is missing"


def test_extra_file_is_not_a_problem() -> None:
    assert file_problem({}, {"extra": ("1", "1")}) == ""


# --- the script itself, on this machine


ARGUMENTS: dict[str, Any] = {
    "service": "triton",
    "packages": ["docker-ce"],
    "unit_files": [],
    "units": ["docker.service"],
    "urls": [],
}


def probe(data_root: Path, stubs: Stubs, **arguments: Any) -> Any:
    """The probe under sh, with the tools of a host played where this machine's would answer."""
    for name in ("rpm", "docker", "systemctl", "nvidia-smi", "curl"):
        if not (stubs.directory / name).exists():
            stubs.add(name, "exit 1")
    script = HostState().command(
        data_root=str(data_root), state_root=str(data_root), **{"files": [], **ARGUMENTS, **arguments}
    )
    done = stubs.run(script)
    assert (done.returncode, done.stderr) == (0, "")
    return HostState().process(done.stdout.split("\n")[:-1])


def test_probe_prints_every_section_once_in_order(tmp_path: Path, stubs: Stubs) -> None:
    probe(tmp_path / "nothing", stubs)
    script = HostState().command(data_root="/nonexistent", state_root="/nonexistent", files=[], **ARGUMENTS)
    assert tuple(sections(stubs.run(script).stdout.split("\n"))) == probe_output.NAMES


def test_lanes_of_the_probe_run_beside_each_other(tmp_path: Path, stubs: Stubs) -> None:
    """None waits for another, and none is lost that says more than a pipe holds."""
    met = {
        name: f': >"{tmp_path}/{name}"; n=0; until [ -e "{tmp_path}/docker" ] && [ -e "{tmp_path}/gpus" ] && '
        f'[ -e "{tmp_path}/rpm" ]; do sleep 0.05; n=$((n + 1)); [ $n -lt 400 ] || exit 1; done'
        for name in ("docker", "gpus", "rpm")
    }
    lines = "seq -f 'tritonhost/a:%06g\tsha256:0' 20000"
    stubs.add("docker", f"case $1 in image) {met['docker']}; {lines} ;; *) exit 1 ;; esac")
    stubs.add("nvidia-smi", f"{met['gpus']}; echo '{probe_output.GPU}'")
    stubs.add("rpm", f"{met['rpm']}; printf 'docker-ce\\t3:29\\n'")
    found = probe(tmp_path / "nothing", stubs)
    assert found.packages == {"docker-ce": ("3:29",)}
    assert (len(found.images), len(found.gpus)) == (20000, 1)


def test_probe_succeeds_on_a_bare_host(tmp_path: Path, stubs: Stubs) -> None:
    found = probe(tmp_path / "nothing", stubs)
    assert (found.artifacts, found.current, found.container, found.packages) == ({}, "", None, {})
    assert not (tmp_path / "nothing").exists()
    assert found.architecture


def test_the_probe_reads_artifacts_releases_and_links(tmp_path: Path, stubs: Stubs) -> None:
    root = tmp_path / "data root"
    engine, kept = root / "engines/k", root / "releases/r"
    for directory in (engine, root / "engines/.k2.partial", kept / "model_repository"):
        directory.mkdir(parents=True)
    (engine / "rank0.engine").write_text("abc", "utf-8")
    mtime = int((engine / "rank0.engine").stat().st_mtime)
    entry = {**ENTRY, "mtime": mtime}
    (engine / "manifest.json").write_text(
        probe_output.manifest("engine", "k", {}, {"rank0.engine": entry}) + "\n", "utf-8"
    )
    (root / "engines/.k2.partial/manifest.json").write_text(
        probe_output.manifest("engine", "k2", {}, {}), "utf-8"
    )
    (kept / "serve").write_text("abc", "utf-8")
    (kept / "model_repository/a b").write_text("", "utf-8")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (kept / "manifest.json").write_text(
        probe_output.manifest("release", "r", {}, {"serve": {**ENTRY, "sha256": digest}}) + "\n", "utf-8"
    )
    (root / "current").symlink_to("releases/r")
    found = probe(root, stubs, inside=[str(engine / "rank0.engine"), str(root / "absent")])
    assert {key: artifact.problem for key, artifact in found.artifacts.items()} == {
        ("engine", "k"): "",
        ("release", "r"): "",
    }
    assert (found.current, found.previous) == ("r", "")
    assert found.release_manifest == {"serve": digest}
    assert found.release_digests["serve"] == digest
    assert set(found.release_digests) == {"serve", "model_repository/a b"}
    assert found.file_digests == {str(engine / "rank0.engine"): digest}
    assert found.inodes[str(engine)] == str(engine.stat().st_ino)
    assert (engine / "rank0.engine").write_text("ab", "utf-8") == 2
    assert probe(root, stubs).artifacts["engine", "k"].problem == "rank0.engine has 2 bytes instead of 3"


def test_probe_finds_tools_by_name_and_quotes_its_arguments(tmp_path: Path, stubs: Stubs) -> None:
    stubs.add("rpm", r"printf 'docker-ce\t3:28.5.2-1.el9\n'; exit 1")
    stubs.add(
        "curl", 'for last in "$@"; do :; done; case $last in *a) printf 200 ;; *) printf 000; exit 7 ;; esac'
    )
    stubs.add("systemctl", 'case $1 in show) printf "Id=docker.service\\nActiveState=active\\n" ;; esac')
    stubs.add("nvidia-smi", f"echo '{probe_output.GPU}'")
    inspected = json.dumps(
        {"Id": "i", "State": {"Running": True, "StartedAt": "t"}, "Image": "m", "Config": {"Labels": None}}
    )
    stubs.add(
        "docker", f"case $1 in container) echo '{inspected}' ;; image) printf 'a:b\\tsha256:0\\n' ;; esac"
    )
    urls = ["http://127.0.0.1:8000/a", "http://127.0.0.1:8000/b?x=1&y=$(touch nowhere)"]
    found = probe(tmp_path, stubs, urls=urls, packages=["docker-ce", "a b; exit 3"])
    assert found.packages == {"docker-ce": ("3:28.5.2-1.el9",)}
    assert found.ready == dict(zip(urls, ("200", "000"), strict=True))
    assert found.units["docker.service"]["ActiveState"] == "active"
    assert found.gpus == (gpu(),)
    assert found.container is not None and found.container.labels == {}
    assert found.images == {"a:b": "sha256:0"}
    assert any(call.endswith("docker-ce a b; exit 3") for call in stubs.calls)


def test_the_probe_finds_artifacts_of_every_kind(tmp_path: Path, stubs: Stubs) -> None:
    for kind in DIRECTORIES:
        directory = Path(artifact_path(str(tmp_path), kind, "k"))
        directory.mkdir(parents=True)
        (directory / "manifest.json").write_text(probe_output.manifest(kind, "k", {}, {}) + "\n", "utf-8")
    found = probe(tmp_path, stubs)
    assert set(found.artifacts) == {(kind, "k") for kind in DIRECTORIES}
    assert len(found.inodes) == len(DIRECTORIES)


def test_database_is_queried_only_where_configured(tmp_path: Path, stubs: Stubs) -> None:
    stubs.add("docker", "case $1 in exec) printf 'version\\t2\\nvectors:a/b@c\\t8\\n' ;; *) exit 1 ;; esac")
    assert probe(tmp_path, stubs).database == DatabaseContents()
    assert probe(tmp_path, stubs, database="triton-database").database == DatabaseContents(
        version=2, vectors={"a/b@c": 8}
    )
