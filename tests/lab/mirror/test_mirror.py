"""The mirror over loopback: git with submodules and LFS, the Hub through the real client, faults, the registry."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.lab.mirror import content, pypi, registry, templates
from tests.lab.mirror.server import Addresses, serving
from tests.lab.standins import calibration_data, small_models, wheels

OPEN, GATED, TOKEN = content.MODEL, content.GATED_MODEL, content.GATED_TOKEN
WEIGHTS = "model.safetensors"
SIZE = 3_000_000

pytestmark = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="needs git-lfs")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the git repositories, and a small model in the place of the real weights."""
    folder = tmp_path_factory.mktemp("cache")
    content.build_git(folder)
    weights = folder / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}\n')
    (weights / "tokenizer.json").write_text("{}\n")
    (weights / WEIGHTS).write_bytes(random.Random("weights").randbytes(SIZE))
    content.build_hub(folder, weights)
    words = {"added_tokens": [], "model": {"vocab": {"<|endoftext|>": 0}, "merges": []}}
    named = folder / "tokenizer"
    named.mkdir()
    (named / "tokenizer.json").write_text(json.dumps(words))
    content.build_small_models(folder, named)
    (folder / "dnf").mkdir()
    (folder / "dnf" / "a.rpm").write_bytes(b"0123456789")
    return folder


@pytest.fixture(scope="module")
def mirror(cache: Path) -> Iterator[Addresses]:
    with serving(cache, "127.0.0.1", 0, 0) as at:
        yield at


@pytest.fixture
def faults(mirror: Addresses) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    def put(rules: list[dict[str, Any]]) -> None:
        request = urllib.request.Request(f"{mirror.hub}/_faults", json.dumps(rules).encode(), method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    yield put
    put([])


@pytest.fixture(autouse=True)
def quiet_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token and no cache of this machine's user."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def git(mirror: Addresses, *arguments: str, home: Path) -> str:
    """git as a host runs it: the public addresses, rewritten to the mirror."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{mirror.http}/git/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    done = subprocess.run(
        ["git", *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def status_of(
    url: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def revision(cache: Path) -> str:
    return str(json.loads((cache / "hub" / f"{OPEN}.json").read_text())["revision"])


# --- git ---


def test_git_repositories_are_reproducible_and_built_once(cache: Path, tmp_path: Path) -> None:
    first = content.build_git(cache)
    assert content.build_git(tmp_path) == first
    repository = cache / "git" / f"{content.BACKEND}.git"
    before = (repository.stat().st_ino, repository.stat().st_mtime_ns)
    assert content.build_git(cache) == first
    assert (repository.stat().st_ino, repository.stat().st_mtime_ns) == before


@pytest.mark.parametrize("tag", ["v0.9.0", "v0.13.0", "v0.17.0"])
def test_clone_with_submodules_and_lfs(mirror: Addresses, cache: Path, tmp_path: Path, tag: str) -> None:
    url = f"https://github.com/{content.BACKEND}.git"
    git(mirror, "clone", "--quiet", "--recurse-submodules", "--branch", tag, url, "work", home=tmp_path)
    work = tmp_path / "work"
    built = content.build_git(cache)
    assert (
        git(mirror, "-C", "work", "rev-parse", "HEAD", home=tmp_path).strip() == built[content.BACKEND][tag]
    )
    assert (work / "tensorrt_llm/3rdparty/cutlass/include/cutlass/version.h").is_file()
    assert (work / "dockerfile/Dockerfile.trt_llm_backend").is_file()
    for model in templates.MODELS:
        assert (work / "all_models/inflight_batcher_llm" / model / "config.pbtxt").is_file()
        assert any((work / "all_models/inflight_batcher_llm" / model / "1").iterdir())

    archive = next(work.glob("tensorrt_llm/cpp/tensorrt_llm/batch_manager/**/*.a"))
    assert archive.read_bytes().startswith(b"version https://git-lfs")
    git(mirror, "-C", "work/tensorrt_llm", "lfs", "pull", home=tmp_path)
    assert archive.read_bytes().startswith(b"!<arch>\n")
    assert archive.stat().st_size == 300_000
    assert git(mirror, "-C", "work", "status", "--porcelain", home=tmp_path) == ""


def test_commit_is_fetched_by_its_id(mirror: Addresses, cache: Path, tmp_path: Path) -> None:
    commit = content.build_git(cache)[content.BACKEND]["v0.10.0"]
    git(mirror, "init", "--quiet", "work", home=tmp_path)
    url = f"https://github.com/{content.BACKEND}"  # without .git, as people type it
    git(mirror, "-C", "work", "fetch", "--quiet", "--depth", "1", url, commit, home=tmp_path)
    assert git(mirror, "-C", "work", "rev-parse", "FETCH_HEAD", home=tmp_path).strip() == commit


def test_cut_clone_fails_and_the_next_one_works(
    mirror: Addresses, tmp_path: Path, faults: Callable[[list[dict[str, Any]]], None]
) -> None:
    faults([{"path_regex": "git-upload-pack$", "method": "POST", "truncate_at": 2000, "times": 2}])
    url = f"https://github.com/{content.BACKEND}.git"
    with pytest.raises(AssertionError, match="fatal"):
        git(mirror, "clone", "--quiet", url, "work", home=tmp_path)
    faults([])
    git(mirror, "clone", "--quiet", url, "work", home=tmp_path)


def test_tags_differ_as_the_real_ones_do(cache: Path) -> None:
    def show(tag: str, path: str) -> str:
        repository = str(cache / "git" / f"{content.BACKEND}.git")
        return subprocess.check_output(["git", "--git-dir", repository, "show", f"{tag}:{path}"], text=True)

    config = "all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt"
    assert 'backend: "tensorrtllm"' in show("v0.9.0", config)
    assert 'backend: "${triton_backend}"' in show("v0.13.0", config)
    assert "data_type: ${logits_datatype}" in show("v0.17.0", config)


def fill(tag: str, text: str, substitutions: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    tool, config = tmp_path / "fill_template.py", tmp_path / "config.pbtxt"
    tool.write_bytes(content.versioned("tools/fill_template.py", tag))
    config.write_text(text)
    return subprocess.run(
        [sys.executable, str(tool), str(config), substitutions], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("tag", "text", "substitutions", "expected"),
    [
        ("v0.9.0", "${a} ${max_queue_size}", "a:1", "1 ${max_queue_size}"),
        ("v0.12.0", "${a} ${max_queue_size}", "a:1", "1 0"),
        ("v0.13.0", "${a}", "a:s3\\://b", None),
        ("v0.16.0", "${a}", "a:s3\\\\\\://b", "s3://b"),
        ("v0.17.0", "${a}", "a:0\\,1", "0,1"),
        ("v0.17.0", "${a}", "a:1,b:2", "1"),
        ("v0.19.0", "${a} ${max_queue_delay_microseconds}", "a:1", "1 0"),
        ("v0.19.0", "${a}", "a:1,b:2", None),
        ("v0.19.0", "${some_dir}", "dir:x", "${some_dir}"),
    ],
)
def test_fill_template_has_the_real_script_s_quirks(
    tag: str, text: str, substitutions: str, expected: str | None, tmp_path: Path
) -> None:
    done = fill(tag, text, substitutions, tmp_path)
    assert (done.stdout.strip() if done.returncode == 0 else None) == expected


# --- files ---


def test_static_files_with_ranges_and_validators(mirror: Addresses) -> None:
    url = f"{mirror.http}/dnf/a.rpm"
    code, headers, body = status_of(url)
    assert (code, body) == (200, b"0123456789")
    assert status_of(url, {"Range": "bytes=7-"})[::2] == (206, b"789")
    assert status_of(url, {"Range": "bytes=-2"})[::2] == (206, b"89")
    assert status_of(url, {"Range": "bytes=20-"})[0] == 416
    assert status_of(url, {"If-None-Match": headers["ETag"]})[0] == 304
    assert status_of(url, {"If-Modified-Since": headers["Last-Modified"]})[0] == 304
    assert status_of(url, {"Range": "bytes=7-", "If-Range": '"other"'})[0] == 200
    assert status_of(f"{mirror.http}/dnf/../git/x")[0] == 404
    assert status_of(f"{mirror.http}/dnf/%2e%2e/weights/config.json")[0] == 404


# --- Hub ---


def test_snapshot_at_a_revision(mirror: Addresses, cache: Path, tmp_path: Path) -> None:
    wanted = revision(cache)
    folder = snapshot_download(OPEN, revision=wanted, cache_dir=tmp_path, endpoint=mirror.hub)
    assert Path(folder).name == wanted
    assert (Path(folder) / WEIGHTS).read_bytes() == (cache / "weights" / WEIGHTS).read_bytes()
    assert sorted(os.listdir(folder)) == ["config.json", WEIGHTS, "tokenizer.json"]
    info = HfApi(endpoint=mirror.hub).model_info(OPEN, files_metadata=True)
    assert info.sha == wanted
    sums = {s.rfilename: s.lfs.sha256 for s in info.siblings or [] if s.lfs}
    assert sums == {WEIGHTS: hashlib.sha256((cache / "weights" / WEIGHTS).read_bytes()).hexdigest()}


def test_download_into_a_folder_and_by_branch(mirror: Addresses, tmp_path: Path) -> None:
    local = tmp_path / "local"
    snapshot_download(OPEN, local_dir=local, allow_patterns=["*.json"], endpoint=mirror.hub)
    assert not (local / WEIGHTS).exists()
    path = hf_hub_download(OPEN, WEIGHTS, local_dir=local, endpoint=mirror.hub)
    assert Path(path).stat().st_size == SIZE


def test_large_file_is_redirected_with_its_checksum(mirror: Addresses, cache: Path) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    opener = urllib.request.build_opener(Stay)
    request = urllib.request.Request(f"{mirror.hub}/{OPEN}/resolve/main/{WEIGHTS}", method="HEAD")
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(request, timeout=10)
    headers = caught.value.headers
    caught.value.close()
    sha256 = hashlib.sha256((cache / "weights" / WEIGHTS).read_bytes()).hexdigest()
    assert caught.value.code == 302
    assert headers["X-Linked-Etag"] == f'"{sha256}"'
    assert headers["X-Linked-Size"] == str(SIZE)
    assert headers["X-Repo-Commit"] == revision(cache)
    assert f"/lfs/{OPEN}/{sha256}/" in headers["Location"]


def test_truncated_transfer_is_resumed(
    mirror: Addresses,
    tmp_path: Path,
    faults: Callable[[list[dict[str, Any]]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The client keeps only whole chunks, and its default chunk is larger than this test's file.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    faults([{"path_regex": f"/lfs/.*{WEIGHTS}", "truncate_at": 1_000_000, "times": 1}])
    path = hf_hub_download(OPEN, WEIGHTS, local_dir=tmp_path, endpoint=mirror.hub)
    assert Path(path).stat().st_size == SIZE
    left = json.loads(status_of(f"{mirror.hub}/_faults")[2])
    assert left[0]["times"] == 0
    assert '" 206 -' in capsys.readouterr().out, "the second transfer asks only for what is missing"


def test_flipped_byte_is_at_its_offset(
    mirror: Addresses, cache: Path, faults: Callable[[list[dict[str, Any]]], None]
) -> None:
    faults([{"path_regex": WEIGHTS, "flip_byte_at": 70_000}])
    original = (cache / "weights" / WEIGHTS).read_bytes()
    url = f"{mirror.hub}/{OPEN}/resolve/main/{WEIGHTS}"
    for headers, start in (({}, 0), ({"Range": "bytes=69990-"}, 69_990)):
        body = status_of(url, headers)[2]
        assert [i + start for i, (a, b) in enumerate(zip(body, original[start:], strict=True)) if a != b] == [
            70_000
        ]


def test_answers_slowness_and_delay(
    mirror: Addresses, faults: Callable[[list[dict[str, Any]]], None]
) -> None:
    url = f"{mirror.hub}/{OPEN}/resolve/main/config.json"
    faults(
        [{"path_regex": "config", "status": 503, "headers": {"Retry-After": "1"}, "times": 1, "delay_s": 0.2}]
    )
    began = time.monotonic()
    code, headers, _ = status_of(url)
    assert (code, headers["Retry-After"]) == (503, "1")
    assert time.monotonic() - began >= 0.2
    assert status_of(url)[0] == 200
    faults([{"path_regex": "config", "bytes_per_second": 80}])
    began = time.monotonic()
    assert status_of(url)[0] == 200
    assert time.monotonic() - began > 0.3


def test_stalled_body_times_out_at_the_client(
    mirror: Addresses, faults: Callable[[list[dict[str, Any]]], None]
) -> None:
    faults([{"path_regex": WEIGHTS, "stall_after": 1000}])
    with urllib.request.urlopen(f"{mirror.hub}/{OPEN}/resolve/main/{WEIGHTS}", timeout=1) as answer:
        assert len(answer.read(1000)) == 1000
        with pytest.raises(TimeoutError):
            answer.read(1)


def test_wrong_rule_is_refused(mirror: Addresses) -> None:
    request = urllib.request.Request(f"{mirror.hub}/_faults", b'[{"path_regexp": "x"}]', method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request, timeout=10)


@pytest.mark.parametrize(("token", "code"), [(False, 401), ("hf_another_token", 403)])
def test_gated_model_is_refused(mirror: Addresses, tmp_path: Path, token: str | bool, code: int) -> None:
    with pytest.raises(GatedRepoError) as caught:
        hf_hub_download(GATED, "config.json", cache_dir=tmp_path, endpoint=mirror.hub, token=token)
    assert caught.value.response.status_code == code
    with pytest.raises(GatedRepoError):
        HfApi(endpoint=mirror.hub, token=token).auth_check(GATED)
    with pytest.raises(HfHubHTTPError):
        snapshot_download(GATED, cache_dir=tmp_path, endpoint=mirror.hub, token=token)


def test_gated_model_downloads_with_its_token(mirror: Addresses, tmp_path: Path) -> None:
    folder = snapshot_download(GATED, cache_dir=tmp_path, endpoint=mirror.hub, token=TOKEN)
    assert (Path(folder) / WEIGHTS).stat().st_size == SIZE


SERVED = {
    **{name: model.revision for name, model in small_models.MODELS.items() if model.revision},
    **{
        name: revision for name, revision in content.pinned_revisions().items() if name in small_models.MODELS
    },
}


@pytest.mark.parametrize("name", sorted(SERVED))
def test_profiles_find_their_model_at_the_pinned_revision(
    mirror: Addresses, tmp_path: Path, name: str
) -> None:
    wanted = SERVED[name]
    api = HfApi(endpoint=mirror.hub, token=False)
    info = api.model_info(name, revision=wanted, files_metadata=True)
    assert info.sha == wanted
    assert sum(s.size or 0 for s in info.siblings or []) < 13_000_000
    config = hf_hub_download(
        name, "config.json", revision=wanted, cache_dir=tmp_path, endpoint=mirror.hub, token=TOKEN
    )
    assert json.loads(Path(config).read_text())["architectures"]
    if info.gated:
        with pytest.raises(GatedRepoError):
            hf_hub_download(name, "config.json", cache_dir=tmp_path / "x", endpoint=mirror.hub, token=False)


def test_dataset_is_served_as_a_dataset(mirror: Addresses, tmp_path: Path) -> None:
    name = calibration_data.NAME
    revision = content.pinned_revisions().get(name, calibration_data.REVISION)
    api = HfApi(endpoint=mirror.hub, token=False)
    info = api.dataset_info(name, revision=revision, files_metadata=True)
    assert (info.id, info.sha) == (name, revision)
    parts = {s.rfilename: s.lfs.sha256 for s in info.siblings or [] if s.lfs}
    train = [part for part in parts if part.startswith("3.0.0/train-")]
    assert train == [f"3.0.0/train-{n:05d}-of-00003.parquet" for n in range(3)]
    folder = snapshot_download(
        name,
        repo_type="dataset",
        revision=revision,
        allow_patterns=["README.md", "3.0.0/*"],
        local_dir=tmp_path / "cnn_dailymail",
        endpoint=mirror.hub,
    )
    card = (Path(folder) / "README.md").read_text()
    assert "path: 3.0.0/train-*" in card
    for part in train:
        data = (Path(folder) / part).read_bytes()
        assert hashlib.sha256(data).hexdigest() == parts[part]
        assert data.startswith(b"PAR1") and data.endswith(b"PAR1")
    assert not (Path(folder) / "1.0.0").exists()
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(name)
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(OPEN)
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info(name, revision="0" * 40)


def test_revisions_are_read_from_every_table_of_a_profile(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        f'[weights]\nrepository = "o/n"\nrevision = "{"1" * 40}"\n'
        f'[checkpoint.quantization.calibration]\nrepository = "d/s"\nrevision = "{"2" * 40}"\n'
        f'[[networks]]\nname = "x"\nweights = {{ repository = "p/q", revision = "{"3" * 40}" }}\n'
    )
    assert content.pinned_revisions(tmp_path) == {"o/n": "1" * 40, "d/s": "2" * 40, "p/q": "3" * 40}


def test_profiles_that_pin_two_revisions_of_a_model_are_refused(tmp_path: Path) -> None:
    for file, digit in (("a.toml", "1"), ("b.toml", "2")):
        (tmp_path / file).write_text(f'[weights]\nrepository = "o/n"\nrevision = "{digit * 40}"\n')
    with pytest.raises(RuntimeError, match=r"b\.toml pins o/n at 2{40}, another profile at 1{40}"):
        content.pinned_revisions(tmp_path)


def test_unknown_revision_and_model_raise_hub_errors(mirror: Addresses, tmp_path: Path) -> None:
    with pytest.raises(RevisionNotFoundError):
        snapshot_download(OPEN, revision="0" * 40, cache_dir=tmp_path, endpoint=mirror.hub)
    with pytest.raises(RepositoryNotFoundError):
        snapshot_download("tritonhost-lab/none", cache_dir=tmp_path, endpoint=mirror.hub)
    code, headers, _ = status_of(f"{mirror.hub}/{OPEN}/resolve/main/none.bin")
    assert (code, headers["X-Error-Code"]) == (404, "EntryNotFound")


# --- the package index ---

WHEEL = "a_small_package-1.0-py3-none-any.whl"


def small_wheel(folder: Path) -> Path:
    """A wheel of one module."""
    folder.mkdir(parents=True)
    files = {
        "a_small_package.py": "ANSWER = 42\n",
        "a_small_package-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: a-small.package\nVersion: 1.0\n",
        "a_small_package-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "a_small_package-1.0.dist-info/RECORD"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(record, "".join(f"{name},,\n" for name in [*files, record]))
    return folder / WHEEL


def test_package_index_is_rebuilt_only_for_new_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, requirements = small_wheel(tmp_path / "made"), tmp_path / "requirements.txt"
    calls = []

    def download(folder: Path, *_: object) -> None:
        calls.append(folder)
        shutil.copy(wheel, folder)

    monkeypatch.setattr(wheels, "download", download)
    pypi.build(tmp_path, requirements)
    assert pypi.page(tmp_path, "a-small-package") is None  # a checkout without such a file has an empty index
    for text, expected in (("a\n", 1), ("a\n", 1), ("b\n", 2)):
        requirements.write_text(text)
        pypi.build(tmp_path, requirements)
        assert len(calls) == expected
    (tmp_path / pypi.FILES / WHEEL).unlink()
    pypi.build(tmp_path, requirements)
    assert len(calls) == 3
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert f"../../files/{WHEEL}#sha256={digest}".encode() in (pypi.page(tmp_path, "a-small-package") or b"")
    assert list((tmp_path / "pypi").glob(".fetch-*")) == []


def test_pip_installs_from_the_index(
    mirror: Addresses, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, requirements = small_wheel(tmp_path / "made"), tmp_path / "requirements.txt"
    monkeypatch.setattr(wheels, "download", lambda folder, *_: shutil.copy(wheel, folder))
    requirements.write_text(
        f"A.Small_Package==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    )
    pypi.build(cache, requirements)
    target = tmp_path / "installed"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--isolated",
        "--disable-pip-version-check",
        "--no-cache-dir",
    ]
    command += ["--require-hashes", "--only-binary=:all:", "--target", str(target)]
    command += ["--index-url", f"{mirror.http}/pypi/simple", "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (target / "a_small_package.py").read_text() == "ANSWER = 42\n"
    # Another name for it, and a missing slash, lead to the page; nothing outside the index is served.
    assert WHEEL.encode() in status_of(f"{mirror.http}/pypi/simple/A.Small_Package")[2]
    assert b">a-small-package<" in status_of(f"{mirror.http}/pypi/simple/")[2]
    for path in ("simple/another/", "files/../files", "files/none.whl", "simple/a/b/", ""):
        assert status_of(f"{mirror.http}/pypi/{path}")[0] == 404
    wrong = f"a-small-package==1.0 --hash=sha256:{'0' * 64}\n"
    requirements.write_text(wrong)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr


# --- the processes ---


def wait_for(url: str, process: subprocess.Popen[str]) -> None:
    for _ in range(100):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{url} did not answer within 5 s")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_server_process_ends_on_sigterm(cache: Path) -> None:
    http, hub = free_port(), free_port()
    command = [sys.executable, "-m", "tests.lab.mirror.server", "--cache", str(cache), "--bind", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--http-port", str(http), "--hub-port", str(hub)], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(f"http://127.0.0.1:{hub}/api/models/{OPEN}", process)
    finally:
        process.terminate()
        output = process.communicate(timeout=10)[0]
    assert process.returncode == 0
    assert "stand-in" in output


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")
def test_registry_starts(tmp_path: Path) -> None:
    port = free_port()
    command = registry.command(tmp_path, f"127.0.0.1:{port}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/v2/", process)
        # 404 and not 405: deleting is allowed, but there is nothing to delete.
        assert (
            status_of(f"http://127.0.0.1:{port}/v2/x/manifests/sha256:{'0' * 64}", method="DELETE")[0] == 404
        )
    finally:
        process.terminate()
        process.communicate(timeout=10)
