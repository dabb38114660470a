"""What a release was made of: the script that asks the host's tools, the reader of its output, and provenance.json."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from operations.facts.provenance import found
from operations.plan.audit.provenance import Found, Image, Package, packages, provenance
from operations.scripts import host_script
from tests.unit.builders import release
from tests.unit.stubs import Stubs

# as rpm 4.18 prints it for a package of the lab, whose signature is in the header, and for a key, which has no header
RPM = (
    "containerd.io\t0\t1.6.20\t1.el9\tx86_64\t" + "5" * 64 + "\t" + "6" * 64 + "\t"
    "RSA/SHA512, Sat Nov 21 11:00:58 2026, Key ID d64d3fabca54bc19\n"
    "gpg-pubkey\t0\tca54bc19\t65f2\t(none)\t(none)\t\t(none)\n"
)
MANIFEST: dict[str, Any] = {
    "kind": "engine",
    "key": "k",
    "inputs": {},
    "files": {"rank0.engine": {"size": 3, "mtime": 9, "sha256": "e" * 64}},
}


def git(*words: str, at: Path) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "protocol.file.allow=always"]
    return subprocess.run(
        ["git", *identity, *words], cwd=at, check=True, capture_output=True, text=True
    ).stdout.strip()


def repository(at: Path) -> Path:
    at.mkdir()
    git("init", "--quiet", at=at)
    (at / "file").write_text(at.name)
    git("add", "file", at=at)
    git("commit", "--quiet", "--message", "one", at=at)
    return at


def test_host_tools_are_queried_and_parsed(tmp_path: Path) -> None:
    inner, outer = repository(tmp_path / "inner"), repository(tmp_path / "outer")
    git("submodule", "--quiet", "add", str(inner), "third party", at=outer)
    git("commit", "--quiet", "--message", "two", at=outer)
    engine = tmp_path / "engines" / "k"
    engine.mkdir(parents=True)
    (engine / "manifest.json").write_text(json.dumps(MANIFEST, indent=1))
    stubs = Stubs(tmp_path / "bin")
    stubs.add("rpm", f"printf '{RPM}'")
    stubs.add(
        "docker", "case $5 in here) printf 'here\\tsha256:1\\t[\"r/n@sha256:2\"]\\n' ;; *) exit 1 ;; esac"
    )
    variables = {"TAGS": "here\ngone", "DIRECTORIES": f"{engine}\n{tmp_path}/gone", "TREE": str(outer)}
    done = stubs.run(host_script("provenance.sh", variables), HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    seen = found(done.stdout.rstrip("\n").split("\n"))
    assert seen.packages[0] == Package(
        "containerd.io", "0:1.6.20-1.el9", "x86_64", "5" * 64, "6" * 64, "d64d3fabca54bc19"
    )
    assert [package["name"] for package in packages(seen)] == ["containerd.io"], "keys are no packages"
    assert seen.images == {"here": Image("sha256:1", ("sha256:2",))}
    assert seen.files == {str(engine): MANIFEST["files"]}
    assert seen.commit == git("rev-parse", "HEAD", at=outer)
    assert seen.tree == git("rev-parse", "HEAD^{tree}", at=outer)
    assert seen.submodules == {
        "third party": {"commit": git("rev-parse", "HEAD", at=inner), "repository": str(inner)}
    }


def test_bare_host_gives_nothing_and_truncated_output_raises(tmp_path: Path) -> None:
    stubs = Stubs(tmp_path / "bin")
    for name in ("rpm", "docker"):
        stubs.add(name, "exit 1")
    variables = {"TAGS": "a", "DIRECTORIES": str(tmp_path / "gone"), "TREE": str(tmp_path / "gone")}
    done = stubs.run(host_script("provenance.sh", variables))
    assert (done.returncode, done.stderr) == (0, "")
    nothing = found(done.stdout.rstrip("\n").split("\n"))
    assert nothing == Found(os_version=nothing.os_version)
    with pytest.raises(ValueError, match="ends early"):
        found(done.stdout.rstrip("\n").split("\n")[:-1])


def test_document_is_deterministic_and_not_an_input_of_the_id() -> None:
    wanted = release()
    engine, weights = wanted.artifact("engine"), wanted.artifact("weights")
    one, two = (Package(name, "0:1-1", "x86_64", "5" * 64, "6" * 64, "d6") for name in "ab")
    files = {engine.path: MANIFEST["files"], weights.path: {}}
    there = Found(packages=(one, two), files=files, images={"t": Image("sha256:1", ())}, commit="c", tree="t")
    document = provenance(wanted, there)
    again = Found(
        packages=(two, one), files=dict(reversed(files.items())), images=there.images, commit="c", tree="t"
    )
    assert json.dumps(provenance(wanted, again)) == json.dumps(document)
    # times differ from host to host, hashes do not; a checkpoint that was not kept is not listed
    assert document["artifacts"] == {
        "weights": {"key": weights.key, "files": {}},
        "engine": {"key": engine.key, "files": {"rank0.engine": {"sha256": "e" * 64, "size": 3}}},
    }
    assert "packages" not in wanted.inputs
    assert provenance(wanted, Found())["source"] is None
