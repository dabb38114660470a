"""The lock file: what is asked for, what is found at a registry, a hub and a dnf repository, and what a deploy takes of it."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from operations import lock_inventory
from operations.lock_inventory import main, moved, wanted_of
from operations.plan import PlanError
from operations.plan.inventory import lock_file
from operations.plan.inventory.lock_file import Locked, read_lock, text_of
from operations.plan.inventory.settings import from_host_data
from tests.lab.mirror import hubindex
from tests.lab.mirror.server import serving
from tests.unit.builders import DATA

IMAGE = "nvidia/tritonserver:26.07-trtllm-python-py3"
TODAY = date(2026, 11, 30)
USED = ("site",)
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
PACKAGES = {"docker-ce": "3:29.9.0-1.el9", "nvidia-container-toolkit": "1.20.0-1"}


@dataclass
class Site:
    """A registry that wants a token, two dnf repositories, and a hub."""

    url: str = ""
    hub: str = ""
    manifests: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: dict(PACKAGES))
    paths: list[str] = field(default_factory=list)

    def answer(self, path: str, token: str) -> tuple[int, bytes, dict[str, str]]:
        self.paths.append(path)
        if path.startswith("/token"):
            return 200, b'{"token": "t"}', {}
        if path.startswith("/v2/"):
            if token != "Bearer t":
                return (
                    401,
                    b"",
                    {
                        "WWW-Authenticate": f'Bearer realm="{self.url}/token",service="r",scope="repository:x:pull"'
                    },
                )
            _, _, name, _, tag = (
                path.rsplit("/", 4) if path.count("/") == 4 else ("", "", *path[4:].rpartition("/manifests/"))
            )
            content = self.manifests.get(f"{name}:{tag}")
            return (200, content, {}) if content else (404, b"", {})
        return self.repository(path)

    def repository(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        name = {"docker": "docker-ce", "toolkit": "nvidia-container-toolkit"}[path.split("/")[1]]
        primary = gzip.compress(package(name, self.versions[name]).encode(), mtime=0)
        if path.endswith("primary.xml.gz"):
            return 200, primary, {}
        if not path.endswith("/repomd.xml"):
            return 404, b"", {}
        checksum = hashlib.sha256(primary).hexdigest()
        text = (
            '<repomd xmlns="http://linux.duke.edu/metadata/repo"><data type="primary">'
            f'<checksum type="sha256">{checksum}</checksum><location href="repodata/primary.xml.gz"/></data></repomd>'
        )
        return 200, text.encode(), {}


def package(name: str, version: str) -> str:
    epoch, _, rest = version.rpartition(":")
    number, _, release = rest.partition("-")
    return (
        '<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm"><package type="rpm">'
        f'<name>{name}</name><arch>x86_64</arch><version epoch="{epoch or 0}" ver="{number}" rel="{release}"/>'
        f'<checksum type="sha256" pkgid="YES">{"a" * 64}</checksum><location href="{name}.rpm"/><format></format></package></metadata>'
    )


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Path]]:
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, headers = site.answer(self.path, self.headers.get("Authorization", ""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    cache = tmp_path_factory.mktemp("cache")
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        serving(cache, "127.0.0.1", 0, 0) as at,
    ):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        site.url, site.hub = f"http://127.0.0.1:{server.server_port}", at.hub
        yield site, cache
        server.shutdown()


@pytest.fixture
def site(servers: tuple[Site, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    found, cache = servers
    found.manifests = {IMAGE: MANIFEST}
    found.versions = dict(PACKAGES)
    found.paths.clear()
    files = tmp_path / "files"
    files.mkdir()
    (files / "config.json").write_text("{}")
    revision = "6dcaa7a952f72f9298047fd5137cd6e4f05f41da"
    hubindex.publish(cache / "hub", "openai-community/gpt2-medium", files, revision=revision)
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_TOKEN_SECRET_OCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(lock_file, "LOCK", tmp_path / "inventories" / "lock.toml")
    return found


@pytest.fixture
def inventory(site: Site, tmp_path: Path) -> Path:
    """One host without a digest."""
    folder = tmp_path / "inventories"
    (folder / "group_data").mkdir(parents=True)
    registry = site.url.removeprefix("http://")
    data = {
        **{name: value for name, value in DATA.items() if name != "image_digests"},
        "model": "gpt2-medium",
        "image_registry": registry,
        "hub_endpoint": site.hub,
        "docker_packages": {"docker-ce": "3:29.9.0-1.el{os_major}"},
        "docker_repository_url": f"{site.url}/docker/",
        "nvidia_container_toolkit_packages": {"nvidia-container-toolkit": "1.20.0-1"},
        "nvidia_container_toolkit_repository_url": f"{site.url}/toolkit/{{channel}}/",
        "docker_daemon_settings": {"insecure-registries": [registry]},
    }
    (folder / "group_data" / "all.py").write_text(
        "".join(f"{name} = {value!r}\n" for name, value in data.items())
    )
    path = folder / "site.py"
    path.write_text('hosts = ["gpu-1"]\n')
    return path


def lock(inventory: Path, *words: str) -> int:
    return main([str(inventory), *words], today=TODAY)


def test_everything_that_an_inventory_needs_is_locked(
    inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lock(inventory) == 0
    assert read_lock(lock_file.LOCK) == [
        Locked("images", IMAGE, DIGEST, site.url.removeprefix("http://"), "2026-11-30", USED),
        Locked(
            "models",
            "openai-community/gpt2-medium",
            "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
            site.hub,
            "2026-11-30",
            USED,
        ),
        Locked("packages", "docker-ce.el9", "3:29.9.0-1.el9", f"{site.url}/docker/", "2026-11-30", USED),
        Locked(
            "packages",
            "nvidia-container-toolkit.el9",
            "1.20.0-1",
            f"{site.url}/toolkit/stable/",
            "2026-11-30",
            USED,
        ),
    ]
    assert capsys.readouterr().out.endswith("lock: 4 entries in inventories/lock.toml, 4 new or moved\n")
    assert lock_file.LOCK.stat().st_mode & 0o777 == 0o644


def test_deploy_takes_the_digest_of_the_lock_file(inventory: Path, site: Site) -> None:
    data = {**DATA, "image_digests": {}}
    assert IMAGE not in from_host_data(data, "gpu-1").image_digests
    lock(inventory)
    assert from_host_data(data, "gpu-1").image_digests[IMAGE] == DIGEST
    own = "sha256:" + "b" * 64
    assert from_host_data({**data, "image_digests": {IMAGE: own}}, "gpu-1").image_digests[IMAGE] == own


def test_check_says_what_has_moved_and_writes_nothing(
    inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    lock(inventory)
    before = lock_file.LOCK.read_bytes()
    assert lock(inventory, "--check") == 0
    capsys.readouterr()
    site.manifests[IMAGE] = MANIFEST + b" "
    assert lock(inventory, "--check", "--json") == 1
    out = capsys.readouterr().out  # the hub of the tests prints its requests there too
    [row] = json.loads(out[out.index("{\n") :])["moved"]
    assert (row["kind"], row["name"], row["before"]) == ("images", IMAGE, DIGEST)
    assert row["now"] == f"sha256:{hashlib.sha256(MANIFEST + b' ').hexdigest()}"
    assert lock_file.LOCK.read_bytes() == before
    assert lock(inventory, "--check") == 1
    assert "4 entries, 1 moved" in capsys.readouterr().out


def test_token_is_asked_for_where_the_registry_wants_one(inventory: Path, site: Site) -> None:
    lock(inventory)
    assert [path.partition("?")[0] for path in site.paths if "/v2/" in path or "/token" in path] == [
        "/v2/nvidia/tritonserver/manifests/26.07-trtllm-python-py3",
        "/token",
        "/v2/nvidia/tritonserver/manifests/26.07-trtllm-python-py3",
    ]


def fails(inventory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert lock(inventory) == 1
    assert not lock_file.LOCK.exists()
    said = capsys.readouterr().err
    assert said.startswith("lock: ") and said.count("\n") == 1
    return said


def test_image_that_is_not_there_is_named(
    inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.manifests.clear()
    assert "/v2/nvidia/tritonserver/manifests/26.07-trtllm-python-py3: found HTTP 404" in fails(
        inventory, capsys
    )


def test_page_in_place_of_a_manifest_is_named(
    inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.manifests[IMAGE] = b"<html>log in</html>"
    assert "found no manifest of an image" in fails(inventory, capsys)


def test_package_that_is_not_there_names_the_newest(
    inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.versions["docker-ce"] = "3:29.10.1-1.el9"
    said = fails(inventory, capsys)
    assert "package docker-ce 3:29.9.0-1.el9: found 3:29.10.1-1.el9 in" in said


def test_commit_that_is_not_there_is_refused(
    inventory: Path, servers: tuple[Site, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hubindex.publish(
        servers[1] / "hub", "openai-community/gpt2-medium", tmp_path / "files", revision="c" * 40
    )
    assert lock(inventory) == 1
    assert (
        "found 6dcaa7a952f72f9298047fd5137cd6e4f05f41da, expected a commit, branch or tag of openai-community/gpt2-medium"
        in capsys.readouterr().err
    )


def test_inventory_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "no.py")]) == 2
    assert "found no such file, expected the Python file of an inventory" in capsys.readouterr().err


def test_entries_come_back_from_the_text(tmp_path: Path) -> None:
    entries = [
        Locked("images", "a/b:1", DIGEST, "nvcr.io", "2026-11-30"),
        Locked("models", "o/n", "c" * 40, "https://huggingface.co", "2026-11-30"),
        Locked("packages", 'odd "name".el9', "1-1", "https://x", "2026-11-30"),
    ]
    path = tmp_path / "lock.toml"
    path.write_text(text_of(entries))
    assert read_lock(path) == entries


def test_entry_that_is_not_needed_any_more_is_a_difference() -> None:
    old = Locked("images", "a/b:1", DIGEST, "nvcr.io", "2026-11-30")
    assert [(row.name, row.before, row.now) for row in moved([old], [])] == [("a/b:1", DIGEST, "")]
    assert moved([old], [old]) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "x = 1",
            "inventories/lock.toml: x: found unknown key x, expected the tables images, models, packages",
        ),
        ("[images]\na = 1", "inventories/lock.toml: images.a: found 1, expected a table"),
        (
            '[images."a:1"]\ndigest = "sha256:x"',
            'inventories/lock.toml: images.a:1.digest: found "sha256:x", expected sha256:',
        ),
        ("[images", "inventories/lock.toml: found "),
    ],
    ids=["table", "entry", "digest", "toml"],
)
def test_damaged_lock_file_is_refused(inventory: Path, text: str, line: str) -> None:
    lock_file.LOCK.write_text(text)
    with pytest.raises(PlanError) as caught:
        from_host_data(DATA, "gpu-1")
    assert str(caught.value).startswith(line)
    # it says to write it again, and that is possible
    assert lock_inventory.main([str(inventory), "--check"], today=TODAY) == 2
    assert lock_inventory.main([str(inventory)], today=TODAY) == 0
    assert len(read_lock(lock_file.LOCK)) == 4


# --- several hosts, several inventories


def write(inventory: Path, text: str, **data: object) -> None:
    """The inventory's file, and what differs in the data of all hosts."""
    inventory.write_text(text)
    path = inventory.parent / "group_data" / "all.py"
    path.write_text(path.read_text() + "".join(f"{name} = {value!r}\n" for name, value in data.items()))


def test_two_repositories_with_the_same_package_are_one_entry(inventory: Path, site: Site) -> None:
    write(inventory, f'hosts = ["gpu-1", ("gpu-2", {{"docker_repository_url": "{site.url}/docker/two/"}})]\n')
    assert lock(inventory) == 0
    assert len([one for one in read_lock(lock_file.LOCK) if one.name == "docker-ce.el9"]) == 1


def test_each_version_that_a_host_pins_is_looked_for(
    inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    write(inventory, 'hosts = ["gpu-1", ("gpu-2", {"docker_packages": {"docker-ce": "9:1-1"}})]\n')
    assert "package docker-ce 9:1-1: found 3:29.9.0-1.el9" in fails(inventory, capsys)


def test_each_commit_that_a_host_pins_is_asked_for(
    inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"profile_overrides": {"weights": {"revision": "d" * 40}}}
    write(inventory, f'hosts = ["gpu-1", ("gpu-2", {other!r})]\n')
    assert f"found {'d' * 40}, expected a commit, branch or tag" in fails(inventory, capsys)


def test_two_registries_must_agree(inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    port = site.url.rpartition(":")[2]
    registry = f"localhost:{port}"
    data = {"image_registry": registry, "docker_daemon_settings": {"insecure-registries": [registry]}}
    write(inventory, f'hosts = ["gpu-1", ("gpu-2", {data!r})]\n')
    assert lock(inventory) == 0
    lock_file.LOCK.unlink()
    answered = site.answer
    manifests = iter([MANIFEST, MANIFEST + b" "])
    site.answer = lambda path, token: (  # type: ignore[method-assign]
        (200, next(manifests), {}) if "/manifests/" in path and token else answered(path, token)
    )
    try:
        assert "expected one digest; write image_digests of these hosts" in fails(inventory, capsys)
    finally:
        del site.answer


def test_entries_of_another_inventory_stay(inventory: Path, site: Site) -> None:
    assert lock(inventory) == 0
    other = inventory.with_name("other.py")
    other.write_text(inventory.read_text())
    data = inventory.parent / "group_data"
    (data / "other.py").write_text("nvidia_container_toolkit_packages = {}\n")
    assert lock(other) == 0
    used = {one.name: one.inventories for one in read_lock(lock_file.LOCK)}
    assert used[IMAGE] == ("site", "other")
    assert used["nvidia-container-toolkit.el9"] == ("site",)
    assert lock(inventory, "--check") == lock(other, "--check") == 0
    # what only one needed goes with it
    (data / "site.py").write_text("nvidia_container_toolkit_packages = {}\n")
    assert lock(inventory) == 0
    assert "nvidia-container-toolkit.el9" not in {one.name for one in read_lock(lock_file.LOCK)}


@pytest.mark.slow
def test_data_of_groups_counts(inventory: Path, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    write(inventory, 'hosts = ["gpu-1"]\ncanary = ["gpu-1"]\n')
    (inventory.parent / "group_data" / "canary.py").write_text('docker_packages = {"docker-ce": "9:1-1"}\n')
    assert "package docker-ce 9:1-1: found" in fails(inventory, capsys)


def test_programs_of_a_monitoring_server_are_locked(inventory: Path, site: Site) -> None:
    """Their images and docker, and nothing of NVIDIA."""
    write(inventory, "hosts = [('watch-1', {'monitoring_server': {'admin_password': 'a'}})]\n")
    found = wanted_of(inventory, ["9"])
    assert {one.name.partition(":")[0] for one in found.images} == {
        *("prom/prometheus", "prom/alertmanager", "grafana/grafana")
    }
    assert found.models == frozenset()
    assert {one.name for one in found.packages} == {"docker-ce"}


@pytest.mark.slow
@pytest.mark.parametrize("text", ["hosts = [", "import no_such_module\n", "hosts = 1 / 0\n"])
def test_inventory_that_does_not_run_is_refused(
    inventory: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    inventory.write_text(text)
    assert lock(inventory) == 2
    said = capsys.readouterr().err
    assert "expected an inventory that runs without an error" in said and said.count("\n") == 1
