"""An air-gapped site's bundle: what is collected, that it is whole, and that the clients of a deploy are served by it.

The collectors fetch here from the product's own server: what it hands out is enough to make another bundle of.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import re
import socket
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import pytest

from operations.bundle import checkouts, images, models, rpms, sums, wheels
from operations.bundle.__main__ import main
from operations.bundle.fetch import BundleError, download, read_json
from operations.bundle.make import _begin, _bulletins, group_data, needed_packages, releases_of, servers_of
from operations.bundle.rpms import Need, Rpm, Version, closure
from operations.bundle.server import BundleServer
from operations.plan.audit import bulletins
from operations.plan.errors import PlanError
from operations.plan.machine.packages import (
    BY_HAND,
    install,
    only_repositories,
    runtime_packages,
    tool_packages,
)
from operations.plan.monitoring import server
from operations.plan.profile.profiles import load_profile
from operations.remote import host_files, repository_files
from tests.unit.builders import DATA, DIGEST, release, settings

REVISION = "c" * 40  # of the builders' profile
URL = "http://10.0.0.5:8080"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    sums.write(bundle)
    with BundleServer(("127.0.0.1", 0), bundle) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def ask(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request(
        method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    try:
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


# --- rpm


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("1.0", "1.1"),
        ("1.9", "1.10"),
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0^git1"),
        ("1.0^git1", "1.0.1"),
        ("1.a", "1.1"),
        ("2.39", "2.39.5"),
        ("08", "9"),
    ],
)
def test_versions_sort_as_in_rpm(older: str, newer: str) -> None:
    assert Version(0, older, "1") < Version(0, newer, "1")
    assert not Version(0, newer, "1") < Version(0, older, "1")
    assert Version(0, newer, "1") < Version(1, older, "1")
    assert Version(0, older, "1.el9") < Version(0, older, "1.el9_5.2")


def rpm(name: str, version: str = "1-1", **changed: Any) -> Rpm:
    epoch, _, plain = version.rpartition(":")
    number, _, made = plain.partition("-")
    provides = (*changed.pop("provides", ()), Need(name, "EQ", number, made))
    fields = {"repository": "base", "location": f"{name}-{version}.rpm", "checksum": ("sha256", "0")}
    return Rpm(
        name=name, version=Version(int(epoch or 0), number, made), provides=provides, **{**fields, **changed}
    )


def chosen(there: list[Rpm], **wanted: str | None) -> list[str]:
    return sorted(package.location.removesuffix(".rpm") for package in closure(there, wanted.items()))


def test_package_brings_its_dependencies_in_newest_versions() -> None:
    there = [
        rpm("git", requires=(Need("git-core", "EQ", "1", "1"), Need("libc.so.6()(64bit)"), Need("/bin/sh"))),
        rpm("git-core"),
        rpm("git-core", "2-1"),
        rpm("glibc", "1-1", provides=(Need("libc.so.6()(64bit)"),)),
        rpm("glibc", "2-1", provides=(Need("libc.so.6()(64bit)"),)),
        rpm("bash", files=("/bin/sh",), requires=(Need("git"),)),
        rpm("unwanted"),
    ]
    assert chosen(there, git=None) == ["bash-1-1", "git-1-1", "git-core-1-1", "glibc-2-1"]


def test_pinned_version_is_chosen_or_refused_if_missing() -> None:
    there = [rpm("docker-ce", "1-1"), rpm("docker-ce", "2-1")]
    assert chosen(there, **{"docker-ce": "1-1"}) == ["docker-ce-1-1"]
    assert chosen(there, **{"docker-ce": "0:2-1"}) == ["docker-ce-2-1"]
    with pytest.raises(BundleError, match="package docker-ce: found 0:1-1, 0:2-1, expected 3-1"):
        closure(there, [("docker-ce", "3-1")])
    with pytest.raises(BundleError, match="package git: found none, expected any version"):
        closure(there, [("git", None)])


def test_rich_requirements_and_modules_are_included_completely() -> None:
    there = [
        rpm("a", requires=(Need("(b(x86-64) >= 2 if (c or d))"),)),
        rpm("b", provides=(Need("b(x86-64)"),)),
        rpm("c", "1-1.module+el8"),
        rpm("c", "2-1.module+el8"),
        rpm("d"),
        rpm("d", "2-1"),
    ]
    assert chosen(there, a=None) == ["a-1-1", "b-1-1", "c-1-1.module+el8", "c-2-1.module+el8", "d-2-1"]


PRIMARY = """<?xml version="1.0"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="2">
<package type="rpm"><name>git</name><arch>x86_64</arch><version epoch="0" ver="2.39.5" rel="1.el9"/>
<checksum type="sha256" pkgid="YES">{checksum}</checksum><location href="getPackage/git.rpm"/>
<format><rpm:provides><rpm:entry name="git" flags="EQ" epoch="0" ver="2.39.5" rel="1.el9"/></rpm:provides>
<rpm:requires><rpm:entry name="rpmlib(X)"/><rpm:entry name="/bin/sh"/></rpm:requires>
<rpm:recommends><rpm:entry name="less"/></rpm:recommends><file>/usr/bin/git</file></format></package>
<package type="rpm"><name>git</name><arch>src</arch></package></metadata>"""


def described(
    name: str, source: str, requires: str = "", version: str = "4.3.0", release: str = "5.el9"
) -> str:
    """A package of a primary.xml. + source: the name of what it was built from; + requires: rpm:entry elements"""
    at = f'epoch="0" ver="{version}" rel="{release}"'
    return (
        f'<package type="rpm"><name>{name}</name><arch>noarch</arch><version {at}/>'
        f'<checksum type="sha256" pkgid="YES">0</checksum><location href="{name}-{version}-{release}.rpm"/>'
        f"<format><rpm:sourcerpm>{source}-{version}-{release}.src.rpm</rpm:sourcerpm>"
        f'<rpm:provides><rpm:entry name="{name}" flags="EQ" {at}/></rpm:provides>'
        f"<rpm:requires>{requires}</rpm:requires></format></package>"
    )


def entry(name: str, flags: str = "EQ", version: str = "4.3.0", release: str = "5.el9") -> str:
    return f'<rpm:entry name="{name}" flags="{flags}" epoch="0" ver="{version}" rel="{release}"/>'


def described_packages(*packages: str) -> list[Rpm]:
    opened = PRIMARY.partition("<package ")[0]
    return rpms.parse_primary(f"{opened}{''.join(packages)}</metadata>".encode(), "baseos")


def test_packages_that_must_update_together_are_included() -> None:
    # dnf-plugins-core is on a host as it is installed, and holds python3-dnf-plugins-core at its own version
    plugins, older = "dnf-plugins-core", {"version": "4.3.0", "release": "4.el9"}
    there = described_packages(
        described("python3-dnf-plugin-versionlock", plugins, entry("python3-dnf-plugins-core")),
        described("python3-dnf-plugins-core", plugins),
        described("python3-dnf-plugins-core", plugins, **older),
        described(
            "dnf-plugins-core", plugins, entry("python3-dnf-plugins-core") + entry("needed", "GE", "1")
        ),
        described("dnf-plugins-core", plugins, entry("python3-dnf-plugins-core", **older), **older),
        described("dnf-utils", plugins, entry("dnf-plugins-core")),
        described("needed", "needed"),
        # built from the same source, and content with any version, or with one that is not chosen
        described("dnf-plugin-loose", plugins, entry("python3-dnf-plugins-core", "GE")),
        described("dnf-plugin-other", plugins, entry("python3-dnf-plugins-core", release="4.el9")),
        # of somebody else: whether a host has it is not known
        described("foreign", "foreign", entry("python3-dnf-plugins-core")),
        # what our dnf leaves alone, whatever else it moves
        described("kernel", plugins, entry("python3-dnf-plugins-core")),
    )
    assert chosen(there, **{"python3-dnf-plugin-versionlock": None}) == [
        "dnf-plugins-core-4.3.0-5.el9",
        "dnf-utils-4.3.0-5.el9",
        "needed-4.3.0-5.el9",
        "python3-dnf-plugin-versionlock-4.3.0-5.el9",
        "python3-dnf-plugins-core-4.3.0-5.el9",
    ]


def test_bundle_holds_every_package_a_host_installs() -> None:
    chosen_for = settings(front="haproxy", local_disks="raid0", extra_packages={"tmux": None})
    pinned = {**runtime_packages(chosen_for, "9"), **tool_packages(chosen_for, "9")}
    assert {"container-selinux", "git-lfs", "haproxy", "mdadm", "nftables", "tmux"} <= pinned.keys()
    assert {"policycoreutils-python-utils", "python3-dnf-plugin-versionlock"} <= pinned.keys()
    there = [rpm(name, version or "1-1") for name, version in pinned.items()]
    advised = [rpm("cloud-utils-growpart", "0.33-1"), rpm("firewalld"), rpm("unwanted")]
    planned = release({**chosen_for.model_dump()})
    found = {package.name for package in needed_packages([planned], "9", [*there, *advised])}
    assert found == {*pinned, "cloud-utils-growpart", "firewalld"}


def test_dnf_calls_in_the_code_name_only_bundled_packages() -> None:
    root = Path(__file__).resolve().parents[2]
    texts = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for folder in ("operations", "files", "templates")
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".py", ".sh", ".j2")
    }
    # what a run installs: one call of dnf, in one operation, of sets that wanted_packages is made of
    assert [name for name, text in texts.items() if re.search(r'"dnf", "install"', text)] == [
        "operations/plan/machine/packages.py"
    ]
    sets = re.findall(r"^ +versions=(\w+)\(", texts["operations/packages.py"], re.MULTILINE)
    assert len(sets) == texts["operations/packages.py"].count("    pinned(") == 2
    assert set(sets) == {"runtime_packages", "tool_packages"}
    # what people are told to install: `dnf install NAME`, and the names that grow_root.sh puts there
    told = {name for text in texts.values() for name in re.findall(r"dnf install ([a-z][\w.-]*)", text)}
    told |= set(re.findall(r"package=([\w.-]+)", texts["files/host/grow_root.sh"]))
    # another repository, which is of no use without a network
    assert told - {"oracle-epel-release-el9"} == set(BY_HAND)


def repository(bundle: Path, name: str, content: bytes = b"an rpm") -> Path:
    """A dnf repository of one package in a bundle."""
    place = bundle / "rpm" / "el9" / name
    put(place / "getPackage" / "git.rpm", content)
    primary = gzip.compress(PRIMARY.format(checksum=sha256(b"an rpm")).encode(), mtime=0)
    put(place / "repodata" / "primary.xml.gz", primary)
    put(place / "repodata" / "repomd.xml.asc", b"a signature")
    data = "".join(
        f'<data type="{kind}"><checksum type="sha256">{digest}</checksum><location href="repodata/{file}"/></data>'
        for kind, digest, file in (
            ("primary", sha256(primary), "primary.xml.gz"),
            ("other", "0" * 64, "gone.xml.gz"),
        )
    )
    put(
        place / "repodata" / "repomd.xml",
        f'<repomd xmlns="http://linux.duke.edu/metadata/repo">{data}</repomd>'.encode(),
    )
    return place


def test_mirror_keeps_metadata_and_only_the_needed_packages(
    tmp_path: Path,
) -> None:
    place = repository(tmp_path / "a", "baseos")
    with serving(tmp_path / "a") as address:
        url, copy = f"http://{address}/rpm/el9/baseos/", tmp_path / "b"
        [package] = rpms.mirror_metadata(url, copy, "baseos")
        assert package.version == Version(0, "2.39.5", "1.el9")
        assert [need.name for need in package.requires] == ["/bin/sh", "less"]
        rpms.fetch(package, url, copy)
    taken = {
        path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()
    }
    assert taken == {
        path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()
    }


def test_package_that_differs_from_its_metadata_is_refused(tmp_path: Path) -> None:
    repository(tmp_path / "a", "baseos", b"another")
    with serving(tmp_path / "a") as address:
        url = f"http://{address}/rpm/el9/baseos/"
        [package] = rpms.mirror_metadata(url, tmp_path / "b", "baseos")
        with pytest.raises(
            BundleError, match=r"git\.rpm: found sha256 .*, expected .*; the source is damaged"
        ):
            rpms.fetch(package, url, tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.rpm*"))


# --- sources that answer, and do not hand out what is asked for


class Answers(BaseHTTPRequestHandler):
    """The same answer to everything."""

    status = 200
    body = b""
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("TheseAnswers", (Answers,), {"status": status, "body": body, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.mark.parametrize("status", [403, 404, 410])
def test_permanent_http_error_is_not_retried(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with (
        answering(status) as (url, asked),
        pytest.raises(BundleError, match=f"HTTP {status}.*does not help") as caught,
    ):
        download(f"{url}/file", tmp_path / "file")
    assert (len(asked), caught.value.status) == (1, status)
    with answering(503) as (url, asked), pytest.raises(BundleError, match=r"HTTP 503.*run again"):
        download(f"{url}/file", tmp_path / "file")
    assert len(asked) == 4


def test_untrusted_certificate_is_not_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise URLError(ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate"))

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(BundleError, match=r"certificate verify failed.*trying again does not help"):
        download("https://mirror.invalid/file", tmp_path / "file")
    assert len(asked) == 1


LOGIN = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"


def test_login_page_is_refused_as_a_file_or_list(tmp_path: Path) -> None:
    with answering(200, LOGIN) as (url, _):
        for ask_for in (
            lambda: download(f"{url}/key", tmp_path / "key"),
            lambda: rpms.mirror_metadata(f"{url}/rpm", tmp_path / "rpm", "baseos"),
            lambda: read_json(f"{url}/info/lfs/objects/batch", body=b"{}"),
            lambda: images.Registry("r.invalid", plain=True).new_token(
                f'Bearer realm="{url}/token"', "r/v2/a"
            ),
        ):
            with pytest.raises(BundleError, match="found an HTML page, expected a file; does a login page"):
                ask_for()
    for body in (b"soon", b"[]", b'{"objects": [1]}'):
        with (
            answering(200, body) as (url, _),
            pytest.raises(BundleError, match=r"found no (JSON|list of objects)"),
        ):
            checkouts._objects_of(read_json(url), url)


def test_failed_signature_download_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    repository(tmp_path / "a", "baseos")

    def away(url: str, *rest: Any) -> bytes:
        raise BundleError(f"{url}: found HTTP 503", 503)

    with serving(tmp_path / "a") as address:
        url = f"http://{address}/rpm/el9/baseos/"
        monkeypatch.setattr(rpms, "read", away)
        with pytest.raises(BundleError, match="503"):
            rpms.mirror_metadata(url, tmp_path / "b", "baseos")
        monkeypatch.setattr(rpms, "read", lambda *_: LOGIN)
        rpms.mirror_metadata(url, tmp_path / "b", "baseos")
    assert not (tmp_path / "b" / "repodata" / "repomd.xml.asc").exists()


# --- images


def blob(bundle: Path, content: bytes) -> str:
    digest = f"sha256:{sha256(content)}"
    put(images.blob_path(bundle, digest), content)
    return digest


def image(bundle: Path) -> str:
    """An image of two processors in a bundle; the list's digest."""
    parts = [{"digest": blob(bundle, text)} for text in (b"config", b"layer")]
    manifest = {"schemaVersion": 2, "mediaType": images.MANIFESTS[0], "config": parts[0], "layers": parts[1:]}
    ours = blob(bundle, json.dumps(manifest).encode())
    platforms = [("arm64", f"sha256:{'0' * 64}"), ("amd64", ours)]
    entries = [{"digest": d, "platform": {"os": "linux", "architecture": a}} for a, d in platforms]
    return blob(bundle, json.dumps({"schemaVersion": 2, "manifests": entries}).encode())


def test_image_is_fetched_by_digest_for_one_architecture(tmp_path: Path) -> None:
    digest = image(tmp_path / "a")
    with serving(tmp_path / "a") as address:
        status, headers, _ = ask(address, f"/v2/nvidia/tritonserver/manifests/{digest}", "HEAD")
        assert (status, headers["Content-Type"]) == (200, images.LISTS[1])
        assert headers["Docker-Content-Digest"] == digest
        assert ask(address, "/v2/")[1]["Docker-Distribution-API-Version"] == "registry/2.0"
        assert ask(address, "/v2/nvidia/tritonserver/manifests/24.09-py3")[0] == 404
        images.Registry(address, plain=True).fetch(tmp_path / "b", "nvidia/tritonserver", digest)
    names = {path.name for path in (tmp_path / "b" / "blobs").iterdir()}
    assert names == {path.name for path in (tmp_path / "a" / "blobs").iterdir()}


class AsksForAToken(BaseHTTPRequestHandler):
    """A registry as the public ones are: 401 with a challenge, and a token for anybody."""

    content: ClassVar[dict[str, bytes]] = {}
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        self.seen.append(self.path)
        if path == "/token":
            self.answer(200, json.dumps({"token": f"for {query}"}).encode())
        elif self.headers.get("Authorization") != "Bearer for scope=repository%3Aa%2Fb%3Apull":
            realm = f'Bearer realm="http://{self.headers["Host"]}/token",scope="repository:a/b:pull"'
            self.answer(401, b"", realm)
        else:
            self.answer(200, self.content[path.rpartition("/")[2]])

    def answer(self, status: int, body: bytes, challenge: str = "") -> None:
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_registry_token_is_requested_anonymously(tmp_path: Path) -> None:
    digest = image(tmp_path / "a")
    AsksForAToken.content = {f"sha256:{p.name}": p.read_bytes() for p in (tmp_path / "a" / "blobs").iterdir()}
    with ThreadingHTTPServer(("127.0.0.1", 0), AsksForAToken) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        images.Registry(f"127.0.0.1:{server.server_address[1]}", plain=True).fetch(
            tmp_path / "b", "a/b", digest
        )
        with pytest.raises(BundleError, match="found HTTP 401, expected an image that anybody may pull"):
            images.Registry(f"127.0.0.1:{server.server_address[1]}", plain=False).new_token(
                f'Bearer realm="http://127.0.0.1:{server.server_address[1]}/token"', "https://r.invalid/v2/a"
            )
        server.shutdown()
    assert len(list((tmp_path / "b" / "blobs").iterdir())) == 4
    assert sum(path.startswith("/token") for path in AsksForAToken.seen) == 1


# --- git


def git(*words: str, at: Path) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    done = subprocess.run(["git", *identity, *words], cwd=at, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def committed(at: Path, files: dict[str, bytes], gitlinks: dict[str, str] | None = None) -> str:
    at.mkdir(parents=True)
    git("init", "--quiet", "--initial-branch=main", at=at)
    for name, content in files.items():
        put(at / name, content)
    git("add", ".", at=at)
    for path, commit in (gitlinks or {}).items():
        git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}", at=at)
    git("commit", "--quiet", "--message", "one", at=at)
    return git("rev-parse", "HEAD", at=at)


LIBRARY = b"a closed library"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(LIBRARY)}\nsize {len(LIBRARY)}\n".encode()


def sources(tmp_path: Path) -> tuple[Path, str]:
    """A bundle with two repositories, one inside the other, and an object of git-lfs; the outer one's commit."""
    bundle = tmp_path / "a"
    inner = committed(tmp_path / "inner", {"lib.a": POINTER})
    modules = b'[submodule "inner"]\n\tpath = deep/inner\n\turl = ../inner.git\n'
    outer = committed(tmp_path / "outer", {".gitmodules": modules, "file": b"x"}, {"deep/inner": inner})
    for name, commit in (("outer", outer), ("inner", inner)):
        place = checkouts.repository_path(bundle, f"https://git.invalid/o/{name}.git")
        git("clone", "--quiet", "--bare", str(tmp_path / name), str(place), at=tmp_path)
        git("tag", "v1", commit, at=place)
        git("config", "uploadpack.allowAnySHA1InWant", "true", at=place)
    put(checkouts.lfs_path(bundle, sha256(LIBRARY)), LIBRARY)
    return bundle, outer


@pytest.mark.slow
def test_checkout_with_submodules_and_lfs_can_be_cloned_again(tmp_path: Path) -> None:
    bundle, outer = sources(tmp_path)
    wanted = checkouts.Checkout("https://git.invalid/o/outer.git", outer, "v1")
    with serving(bundle) as address:
        mirrors = {"https://git.invalid/": f"http://{address}/git/git.invalid/"}
        collector = checkouts.Collector(tmp_path / "b", mirrors)
        collector.fetch(wanted, submodules=True, lfs=True)
        with pytest.raises(BundleError, match=f"at commit {outer}, expected {'0' * 40}; see backend_commits"):
            moved = checkouts.Checkout(wanted.url, "0" * 40, "v1")
            checkouts.Collector(tmp_path / "c", mirrors).fetch(moved, submodules=False, lfs=False)
    assert [found.url for found in collector.found] == [wanted.url, "https://git.invalid/o/inner.git"]
    assert checkouts.lfs_path(tmp_path / "b", sha256(LIBRARY)).read_bytes() == LIBRARY
    # what is in the bundle is enough for a host: a shallow fetch of the tag, and submodules by their commits
    with serving(tmp_path / "b") as address:
        clone = tmp_path / "clone"
        configured = ["-c", f"url.http://{address}/git/git.invalid/.insteadOf=https://git.invalid/"]
        git("init", "--quiet", str(clone), at=tmp_path)
        git(*configured, "fetch", "--quiet", "--depth", "1", wanted.url, "refs/tags/v1", at=clone)
        assert git("rev-parse", "FETCH_HEAD^{commit}", at=clone) == outer
        url = f"http://{address}/git/git.invalid/o/inner.git"
        git("clone", "--quiet", "--depth", "1", url, str(tmp_path / "again"), at=tmp_path)
        assert (tmp_path / "again" / "lib.a").read_bytes() == POINTER
        assert ask(address, "/git/git.invalid/o/outer.git/info/refs?service=git-receive-pack")[0] == 404
        assert ask(address, "/git/git.invalid/o/outer.git/git-receive-pack", "POST")[0] == 404


# --- models


@pytest.mark.slow
def test_weights_are_fetched_by_the_hosts_program_and_served(tmp_path: Path) -> None:
    there = models.model_path(tmp_path / "a", "weights", "owner/name", REVISION)
    files = {"model.safetensors": b"tensors", "config.json": b"{}"}
    for name, content in files.items():
        put(there / name, content)
    with serving(tmp_path / "a") as address:
        artifact = release({"hub_endpoint": f"http://{address}/hub"}).artifact("weights")
        models.fetch(tmp_path / "b", artifact)
        other = release(
            {"hub_endpoint": f"http://{address}/hub"}, {"weights": {"revision": "d" * 40}}
        ).artifact("weights")
        with pytest.raises(BundleError, match="found no revision dddd"):
            models.fetch(tmp_path / "b", other)
    taken = models.model_path(tmp_path / "b", "weights", "owner/name", REVISION)
    assert {path.name: path.read_bytes() for path in taken.iterdir()} == files


# --- wheels


def test_wheels_are_listed_under_normalized_project_names(tmp_path: Path) -> None:
    put(tmp_path / "pypi" / "files" / "Ruamel.Yaml-1.0-py3-none-any.whl", b"a wheel")
    wheels.write_index(tmp_path)
    with serving(tmp_path) as address:
        assert b'href="ruamel-yaml/"' in ask(address, "/pypi/simple/")[2]
        page = ask(address, "/pypi/simple/ruamel-yaml/")[2].decode()
        assert f"../../files/Ruamel.Yaml-1.0-py3-none-any.whl#sha256={sha256(b'a wheel')}" in page
        assert ask(address, "/pypi/files/Ruamel.Yaml-1.0-py3-none-any.whl")[2] == b"a wheel"


@pytest.mark.slow
def test_wheels_are_fetched_with_the_hashes_of_the_requirements(tmp_path: Path) -> None:
    wheel = tmp_path / "a" / "pypi" / "files" / "small-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        archive.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("small-1.0.dist-info/RECORD", "")
    wheels.write_index(tmp_path / "a")
    with serving(tmp_path / "a") as address:
        index = f"http://{address}/pypi/simple/"
        line = f"small==1.0 --hash=sha256:{sha256(wheel.read_bytes())}\n"
        assert wheels.fetch(tmp_path / "b", line, "3.10", index) == [wheel.name]
        with pytest.raises(
            BundleError, match=r"wheels for Python 3\.10: ERROR: .*; expected a wheel of each"
        ):
            wheels.fetch(tmp_path / "c", f"small==1.0 --hash=sha256:{'0' * 64}\n", "3.10", index)


# --- files, sums and the server


def test_damaged_missing_and_extra_files_are_named(tmp_path: Path) -> None:
    for name in ("a", "b/c", "d"):
        put(tmp_path / name, name.encode())
    assert sums.write(tmp_path) == 3
    assert sums.verify(tmp_path) == 3
    assert (
        subprocess.run(["sha256sum", "--check", "--quiet", sums.NAME], cwd=tmp_path, check=False).returncode
        == 0
    )
    put(tmp_path / "a", b"A")
    (tmp_path / "d").unlink()
    put(tmp_path / "e", b"")
    with pytest.raises(
        BundleError, match="found d is missing, e is not listed, a is damaged, expected what SHA256SUMS"
    ):
        sums.verify(tmp_path)
    (tmp_path / "e").unlink()
    (tmp_path / "e").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="found a link or a special file"):
        sums.verify(tmp_path)
    (tmp_path / sums.NAME).unlink()
    with pytest.raises(BundleError, match="found no SHA256SUMS, expected a finished bundle"):
        sums.listed(tmp_path)


def test_server_serves_whole_or_partial_files_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path / "a" / "keys" / "docker-ce", b"0123456789")
    put(tmp_path / "a" / "bundle.json", b"{}")
    put(tmp_path / "secret", b"secret")
    with serving(tmp_path / "a") as address:
        etag = ask(address, "/keys/docker-ce")[1]["ETag"]
        assert ask(address, "/keys/docker-ce", "HEAD")[1]["Content-Length"] == "10"
        for headers, expected in (
            ({}, (200, b"0123456789")),
            ({"Range": "bytes=4-"}, (206, b"456789")),
            ({"Range": "bytes=4-5", "If_Range": etag}, (206, b"45")),
            ({"Range": "bytes=4-5", "If_Range": '"other"'}, (200, b"0123456789")),
            ({"Range": "bytes=-3"}, (206, b"789")),
            ({"Range": "bytes=10-"}, (416, b"")),
            ({"If_None_Match": etag}, (304, b"")),
            ({"If_None_Match": '"other"'}, (200, b"0123456789")),
        ):
            status, _, content = ask(address, "/keys/docker-ce", **headers)
            assert (status, content) == expected
        put(tmp_path / "a" / "keys" / "new", b"not listed")
        outside = (
            "/keys/../../secret",
            "/keys/%2e%2e/%2e%2e/secret",
            "/rpm//etc/passwd",
            "/keys/new",
            "/keys",
            "/",
        )
        for path in (
            *outside,
            "/bundle.json",
            "/SHA256SUMS",
            "/git/../secret",
            "/v2/x/blobs/sha256:0",
            "/git-lfs/",
        ):
            assert ask(address, path)[0] == 404, path
        assert ask(address, "/keys/docker-ce", "PUT")[0] == 501


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 90000000\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n20000000\r\n",
    ],
)
def test_unexpected_request_closes_its_connection(tmp_path: Path, head: str) -> None:
    put(tmp_path / "keys" / "docker-ce", b"0123456789")
    with serving(tmp_path) as address:
        name, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((name, int(port)), timeout=10) as connection:
            connection.sendall(f"POST /git/x.git/git-upload-pack HTTP/1.1\r\nHost: x\r\n{head}".encode())
            assert connection.recv(1) == b""
        assert ask(address, "/keys/docker-ce")[0] == 200


def test_a_file_with_another_hash_is_not_kept(tmp_path: Path) -> None:
    put(tmp_path / "a" / "keys" / "k", b"key")
    with serving(tmp_path / "a") as address:
        with pytest.raises(BundleError, match="expected 0000"):
            download(f"http://{address}/keys/k", tmp_path / "k", "0" * 64)
        with pytest.raises(BundleError, match="found HTTP 404, expected an answer"):
            download(f"http://{address}/keys/gone?token=x", tmp_path / "k")
    assert not list(tmp_path.glob("k*"))


# --- the inventory's side


def evaluated(text: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    exec(compile(text, "group_data", "exec"), values)
    return {name: value for name, value in values.items() if not name.startswith("__")}


def test_group_data_point_to_the_bundle_and_change_no_artifact() -> None:
    online = release({"docker_daemon_settings": {"insecure-registries": ["r:1"], "debug": True}})
    data = evaluated(group_data([online], URL, ["appstream", "baseos"], ["github.com"]))
    offline = release({**online.settings.model_dump(), **data})
    assert offline.id == online.id
    assert [made.key for made in offline.artifacts] == [made.key for made in online.artifacts]
    kept = {"docker_daemon_settings": {"insecure-registries": ["r:1", "http://10.0.0.5:8080"], "debug": True}}
    assert {key: data[key] for key in kept} == kept
    commands = [word for step in offline.steps for argv in step.artifact.commands for word in argv]
    for elsewhere in ("huggingface.co", "mirror.invalid", "nvcr.io"):
        assert elsewhere not in str(data)
        assert elsewhere not in str(commands)


def test_bundle_of_a_gated_model_needs_no_token() -> None:
    gated = release({"profile_overrides": {"engine": {"max_batch_size": 4}}}, {"weights": {"gated": True}})
    data = evaluated(group_data([gated], URL, [], []))
    assert data["profile_overrides"] == {"engine": {"max_batch_size": 4}, "weights": {"gated": False}}
    assert "profile_overrides" not in evaluated(group_data([release()], URL, [], []))


def test_dnf_uses_only_the_inventory_s_repositories() -> None:
    assert only_repositories(settings()) == ()
    assert repository_files.SYSTEM_REPOSITORIES not in host_files.rendered(release())
    [command] = install({"git": None}, ["git"], options=("--disablerepo=*",)).commands
    assert command[-2:] == ("--disablerepo=*", "git")
    named = {"system_repositories": {"baseos": f"{URL}/rpm/el{{os_major}}/baseos/"}}
    assert only_repositories(settings(**named)) == (
        "--disablerepo=*",
        "--enablerepo=docker-ce-stable",
        "--enablerepo=nvidia-container-toolkit",
        "--enablerepo=tritonhost-baseos",
    )
    text = host_files.rendered(release(named))[repository_files.SYSTEM_REPOSITORIES].text
    assert (
        f"[tritonhost-baseos]\nname=Oracle Linux packages of this site: tritonhost-baseos\nbaseurl={URL}/rpm/el9/"
        in text
    )
    assert "enabled=0\ngpgcheck=1\n" in text


def test_bundle_carries_the_feed_of_exposure(tmp_path: Path) -> None:
    [entry] = _bulletins(tmp_path)
    assert (tmp_path / entry["name"]).read_bytes() == bulletins.SHIPPED.read_bytes()
    assert entry["pinned"] == bulletins.load(bulletins.SHIPPED).collected.isoformat()


# --- the command


def inventory(folder: Path, hosts: str) -> Path:
    data = folder / "group_data"
    data.mkdir()
    own = Path(__file__).resolve().parents[2] / "inventories" / "group_data" / "all.py"
    digests = f"image_digests = {{'nvidia/tritonserver:24.09-py3': 'sha256:{'b' * 64}'}}\n"
    (data / "all.py").write_text(
        f'{own.read_text()}{digests}model = "smollm2-135m"\nwaivers = {DATA["waivers"]!r}\n'
    )
    (folder / "site.py").write_text(f"hosts = {hosts}\n")
    return folder / "site.py"


def test_release_is_planned_per_distinct_host_and_version(tmp_path: Path) -> None:
    image = f"nvidia/tritonserver:{load_profile('gpt2-medium').image.release}-trtllm-python-py3"
    other = {"model": "gpt2-medium", "image_digests": {image: DIGEST}}
    upgraded = {"docker_packages": {"docker-ce": "3:29.0.0-1.el{os_major}"}}
    place = inventory(tmp_path, repr([("a", {}), ("b", {}), ("c", upgraded), ("d", other)]))
    found = releases_of(place, ["8", "9"])
    assert len(found) == 6
    assert {(release.settings.model, release.os_major) for release in found} == {
        (model, major) for model in ("smollm2-135m", "gpt2-medium") for major in ("8", "9")
    }


def test_monitoring_server_adds_its_images_and_packages(tmp_path: Path) -> None:
    """It is no release: a host that serves is needed, too."""
    table = {"monitoring_server": {"admin_password": "a"}}
    place = inventory(tmp_path, repr([("a", {}), ("watch-1", table)]))
    planned, servers = releases_of(place, ["9"]), servers_of(place)
    assert len(planned) == len(servers) == 1
    own = {**server.packages(servers[0], "9"), "only-of-it": None}
    there = [
        rpm(name, version or "1-1") for name, version in {**runtime_packages(servers[0], "9"), **own}.items()
    ]
    found = {package.name for package in needed_packages([], "9", there, servers)}
    assert found == server.packages(servers[0], "9").keys()
    assert not any("nvidia" in name for name in found)
    (tmp_path / "site.py").write_text(f"hosts = {[('watch-1', table)]!r}\n")
    with pytest.raises(PlanError, match="a host that serves"):
        releases_of(place, ["9"])


def test_bundle_command_reports_errors_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = inventory(tmp_path, "[('a', {}), ('b', {'hub_endpoint': 'https://elsewhere.invalid'})]")
    full = tmp_path / "full"
    put(full / "file", b"")
    for arguments, code, said in (
        (
            ["make", str(place), "--output", str(tmp_path / "o"), "--url", URL],
            2,
            "tritonhost: b: hub_endpoint: found",
        ),
        (["verify", str(tmp_path / "gone")], 1, "found no SHA256SUMS"),
        (["serve", str(full), "--listen", "127.0.0.1:0"], 1, "found no SHA256SUMS"),
    ):
        assert main(arguments) == code
        [line] = capsys.readouterr().err.splitlines()
        assert said in line
    with pytest.raises(BundleError, match="found files of something else, expected an empty directory"):
        _begin(full)
    for wrong in ("https://a:1", "a:1", "http://a"):
        with pytest.raises(SystemExit):
            main(["make", str(place), "--output", "o", "--url", wrong])


class _Recorded:
    label = "bundle"


def _handler(sent: bytes) -> Any:
    from operations.bundle.handler import Handler

    handler = object.__new__(Handler)
    handler.rfile = io.BytesIO(sent)
    handler.headers = {"Transfer-Encoding": "chunked"}  # type: ignore[assignment]
    handler.server = _Recorded()  # type: ignore[assignment]
    handler.client_address = ("10.0.0.9", 1)
    return handler


def test_handler_refuses_an_endless_line() -> None:
    assert _handler(b"3\r\nabc\r\n0\r\n\r\n").body() == b"abc"
    for sent in (b"0" * 5000, b"3\r\nabc" + b"x" * 5000):
        with pytest.raises(ConnectionError, match="a line of more than 1024 bytes"):
            _handler(sent).body()


def test_handler_logs_no_escape_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    _handler(b"").log_message('"%s" %s', "GET /\x1b[2J\x07\r", 404)
    said = capsys.readouterr().out
    assert said == 'bundle: 10.0.0.9 "GET /\\x1b[2J\\x07\\x0d" 404\n'
