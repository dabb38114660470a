"""Faulty or unreachable sources: the host's requests to them, the messages, and clients that are served meanwhile."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.lab import network
from tests.lab.e2e.one_host import DATA_ROOT, Done, OneHost
from tests.lab.faults.conftest import ONCE_AFTER_ALL, Table
from tests.lab.faults.load import ask
from tests.lab.mirror.hubindex import load
from tests.lab.settings import REPOSITORY
from tests.lab.standins.registry import Registry, digest_of

# A gated model of 258 MiB that uses every source: a checkout from git, a built image, and more than one of the 10 MiB
# pieces in which huggingface_hub 2.4 writes a file: an incomplete first piece is not kept.
GATED_MODEL = {"LAB_MODEL": "smollm2-135m"}
GATED = {"weights": {"repository": "tritonhost-lab/smollm2-135m-gated", "gated": True}}
TOKEN = "hf_lab_token_for_tests"
PIECE = 10 << 20
ATTEMPTS = 6  # of files/image/download_weights.py
STALL_S = 10  # seconds without a byte until a request is given up: HF_HUB_DOWNLOAD_TIMEOUT of huggingface_hub
API = r"^/api/models/"
HTTP, HUB, REGISTRY = 8000, 8001, 5000


@pytest.mark.requirement("R28")
def test_transient_hub_faults_are_retried_in_one_run(converged: OneHost, table: Table) -> None:
    key = _without_weights(converged)
    log, since = mirror_log(converged), converged.now()
    one_byte_short = _published(converged, "tokenizer.json").stat().st_size - 1
    with faults(
        converged,
        {"path_regex": API, "status": 429, "headers": {"Retry-After": "3"}, "times": 1},
        {"path_regex": r"/config\.json$", "status": 500, "times": 3},
        {"path_regex": r"/model\.safetensors$", "method": "GET", "stall_after": 1_000_000, "times": 1},
        {"path_regex": r"/tokenizer\.json$", "method": "GET", "truncate_at": one_byte_short, "times": 1},
    ):
        done = converged.deploy("--data", "soak_s=0")
    assert done.code == 0, done.output
    asked = log()
    # the description, which is read before the weights, meets the first refusal
    at = _clock(converged, "tritonhost-description-*.service", since)
    waited = at(" config.json") - at("attempt 1 of 6: HTTP 429; again in 3 s")
    assert 2.9 <= waited < 8, "the journal notes a line a moment after it was printed"
    assert count(asked, "?blobs=true") == 3, "refused once, then answered, and asked for the weights"
    table.add(f"hub: 429 with Retry-After 3, waited {waited:.1f} s", 1, ONCE_AFTER_ALL)

    assert count(asked, 'config.json HTTP/1.1" 500') == 3
    table.add("hub: 500 three times", 1, ONCE_AFTER_ALL)

    at = _clock(converged, f"tritonhost-weights-{key}.service", since)
    stalled = at("4/5 tokenizer.json") - at("3/5 model.safetensors")
    assert STALL_S <= stalled < 2 * STALL_S
    table.add(f"hub: stall in a file, given up and got within {stalled:.1f} s", 1, ONCE_AFTER_ALL)

    assert count(asked, '/tokenizer.json HTTP/1.1" 200', "GET") == 2
    table.add("hub: one byte short, fetched again", 1, ONCE_AFTER_ALL)
    sealed_and_clean(converged, key)


@pytest.mark.requirement("R28", "R30")
def test_permanent_hub_faults_end_the_run_and_seal_nothing(converged: OneHost, table: Table) -> None:
    key = _without_weights(converged)
    seconds: dict[str, float] = {}

    def refused(fault: str, *options: str, expected: str) -> None:
        with still_serving(converged):
            done = converged.deploy(*options)
        assert last_words(done) == expected
        assert not exists(converged, f"{DATA_ROOT}/weights/{key}")
        seconds[fault] = done.seconds

    name = "openai-community/gpt2-medium"
    with faults(converged, {"path_regex": API, "status": 401}):
        refused(
            "401",
            expected=f"weights: {name}: HTTP 401, found no token, expected one with access; export HF_TOKEN",
        )
    log = mirror_log(converged)
    with faults(converged, {"path_regex": API, "status": 503, "headers": {"Retry-After": "0"}}):
        refused(
            "always 503",
            expected=f"weights: {name}: {converged.settings.hub}: HTTP 503; expected the hub to answer; run again to resume",
        )
    assert count(log(), '" 503 -') == ATTEMPTS
    flipped = {"path_regex": r"/model\.safetensors$", "method": "GET", "flip_byte_at": 2_000_000}
    with faults(converged, flipped):
        refused(
            "a flipped byte",
            expected=f"weights: {name}: model.safetensors does not have the checksum the hub states; fetched again next run",
        )
    assert _partial(converged, key) == ["config.json", "generation_config.json"], (
        "what was right, and nothing else"
    )
    with _elsewhere(converged, _of_pointers(converged)) as other:
        refused(
            "git-lfs pointers",
            *("--data", f"hub_endpoint={other.url}"),
            expected=f"weights: {name}: model.safetensors is a git-lfs pointer, expected its content; {other.url} lacks LFS objects",
        )
    assert _partial(converged, key) == ["config.json", "generation_config.json"]
    assert max(seconds.values()) < 30

    # the hub is reachable again while the run still tries: a refused connection is a temporary fault
    since = converged.now()
    unit = f"tritonhost-weights-{key}.service"
    with meanwhile(lambda: converged.deploy("--data", "soak_s=0")) as deploying:
        with _unreachable(converged, HUB):
            until(lambda: "attempt 2 of 6" in " ".join(_said(converged, unit, since)))
        done = deploying()
    assert done.code == 0, done.output
    sealed_and_clean(converged, key)
    for fault, after in seconds.items():
        table.add(f"hub: {fault}, refused after {after:.1f} s", 1, ONCE_AFTER_ALL)
    table.add("hub: connection refused, back before the third attempt", 1, 1)


@pytest.mark.requirement("R28")
def test_new_model_is_made_after_one_fault_of_each_source(converged: OneHost, table: Table) -> None:
    """Every source of a new model fails once, without an effect on clients; then one run makes the model."""
    before = converged.running_release()
    became: list[str] = []
    # left by an earlier run of this test, if the lab was kept
    converged.root(
        f"rm -rf $(grep -l smollm2-135m-gated {DATA_ROOT}/weights/*/manifest.json | xargs -r dirname)"
    )
    name = str(GATED["weights"]["repository"])
    hub = load(converged.settings.cache / "hub", name)
    assert hub is not None
    file = hub.files["model.safetensors"]

    def refused(
        expected: str, overrides: Mapping[str, Any] = GATED, token: str = TOKEN, ours: bool = True
    ) -> float:
        with still_serving(converged):
            done = converged.deploy(overrides=overrides, environment={**GATED_MODEL, "HF_TOKEN": token})
        said = last_words(done, ours)
        assert re.fullmatch(expected, said), said
        assert TOKEN not in done.output
        return done.seconds

    with _unreachable(converged, HTTP):
        took = refused(rf".*{converged.settings.mirror}/git/.*", ours=False)
    became.append(f"git mirror away, its checkout needed: refused after {took:.1f} s")

    with faults(converged, {"path_regex": API, "status": 401}):
        took = refused(rf"weights: {name}: HTTP 401, found a token the hub does not know, .*")
    became.append(f"hub: 401 to a token, after {took:.1f} s")
    # the preflight asks the hub before anything is made
    with still_serving(converged):
        denied = converged.deploy(
            overrides=GATED, environment={**GATED_MODEL, "HF_TOKEN": "hf_another_token"}
        )
    assert denied.code == 1, denied.output
    assert re.search(
        r"failed +hub token +HTTP 403, the token has no access to this gated model", denied.output
    )
    assert "hf_another_token" not in denied.output
    became.append(f"hub: 403, gated, after {denied.seconds:.1f} s")
    nowhere = {"weights": {**GATED["weights"], "revision": "0" * 40}}
    took = refused(rf"weights: {name}: found no revision 0{{40}}, expected a commit .*", overrides=nowhere)
    became.append(f"hub: unknown revision, after {took:.1f} s")

    with _elsewhere(converged, {}) as other:
        with faults(converged, {"path_regex": API, "status": 302, "headers": {"Location": f"{other.url}/"}}):
            took = refused(
                rf"weights: {name}: {converged.settings.hub}: HTTP 404, expected the hub to answer; .*"
            )
        assert other.requests, "it was followed"
        assert not [each for each in other.requests if "authorization" in each.headers]
    became.append(f"hub: metadata redirected to another host, no token there, after {took:.1f} s")

    # the file comes from another host, as with the public hub, and the connection breaks in the middle of it
    half = file.size // 2
    with _elsewhere(
        converged, {"/storage": Page((hub.folder / "model.safetensors").read_bytes(), cut_once_at=half)}
    ) as storage:
        redirected = {
            "path_regex": r"/resolve/.*/model\.safetensors$",
            "status": 302,
            "headers": {
                "Location": f"{storage.url}/storage",
                "X-Repo-Commit": hub.revision,
                "X-Linked-Etag": f'"{file.etag}"',
                "X-Linked-Size": str(file.size),
            },
        }
        with faults(converged, redirected):
            done = converged.deploy(
                "--data", "soak_s=0", overrides=GATED, environment={**GATED_MODEL, "HF_TOKEN": TOKEN}
            )
        assert done.code == 0, done.output
        assert TOKEN not in done.output
        gets = [each for each in storage.requests if each.method == "GET"]
        assert not [each for each in storage.requests if "authorization" in each.headers]
    first, again = gets
    assert "range" not in first.headers
    resumed = int(again.headers["range"].removeprefix("bytes=").rstrip("-"))
    assert half - PIECE <= resumed <= half
    assert first.sent + again.sent < file.size + PIECE
    became.append("hub: redirect to a storage elsewhere, no token there")
    became.append(f"hub: reset after {half >> 20} MiB, continued at {resumed >> 20} MiB")
    sealed_and_clean(converged, converged.artifact("weights"))

    converged.converge()
    assert converged.running_release() == before
    for fault in became:
        table.add(fault, 1, ONCE_AFTER_ALL)


@pytest.mark.requirement("R33")
@pytest.mark.smoke
def test_engine_and_release_are_remade_with_all_sources_down(converged: OneHost, table: Table) -> None:
    release, engine = converged.running_release(), converged.artifact("engine")
    converged.root(f"rm -rf {DATA_ROOT}/engines/{engine} {DATA_ROOT}/releases/{release}")
    with _unreachable(converged, HTTP, HUB, REGISTRY):
        # only a host without the artifacts needs the sources: this one has them, and their absence is no failure
        done = converged.deploy("--data", "soak_s=0")
    assert done.code == 0, done.output
    assert converged.running_release() == release
    table.add("dnf, git, hub and registry away, engine and release to be made", 1, 1, artifacts_lost=1)


def test_needed_source_that_is_down_is_named(converged: OneHost, table: Table) -> None:
    tag = converged.current()["image"]["tag"]
    _forget_image(converged, tag)
    with still_serving(converged):
        with _unreachable(converged, REGISTRY):
            done = converged.deploy()
        assert converged.settings.registry in last_words(done, ours=False)
        again = converged.converge()
    assert "Pull the serving image" in again.output
    assert converged.litter() == []
    table.add(f"registry away, its image needed: refused after {done.seconds:.1f} s", 1, 1)

    converged.root("rpm --erase --nodeps git-lfs; rm -rf /var/cache/dnf")
    with still_serving(converged):
        with _unreachable(converged, HTTP):
            done = converged.deploy()
        assert done.code == 1, done.output
        assert converged.settings.mirror in last_words(done, ours=False)
        converged.converge()
    assert converged.root("rpm -q git-lfs").startswith("git-lfs-")
    assert converged.litter() == []
    table.add(f"dnf mirror away, a package needed: refused after {done.seconds:.1f} s", 1, 1)


def test_moved_tag_is_not_pulled(converged: OneHost, table: Table) -> None:
    """
    The registry's tag refers to another image than the digest in the inventory.

    Other labs share the registry's files: they pull by digest as well, and `lab up` restores the tag.
    """
    image = converged.current()["image"]
    name, digest = image["inputs"]["image"], image["inputs"]["digest"]
    repository, _, tag = name.partition(":")
    registry = Registry(converged.settings.registry)
    original = registry.manifest(repository, digest)
    with _tag_moved(registry, repository, tag, original) as moved:
        assert moved != digest
        _forget_image(converged, image["tag"])
        reference = f"{converged.settings.registry}/{name}"
        assert moved in converged.root(f"docker pull --quiet {reference} && docker image inspect {reference}")
        converged.root(f"docker rmi {reference}")
        done = converged.converge()
        assert "Pull the serving image" in done.output
        pulled = converged.root(f"docker image inspect --format '{{{{json .RepoDigests}}}}' {image['tag']}")
    assert [each.rpartition("@")[2] for each in json.loads(pulled)] == [digest]
    converged.verified("test_artifacts or test_service")
    table.add("registry's tag moved to another image: the pinned digest pulled", 1, 1)


@contextmanager
def _tag_moved(registry: Registry, repository: str, tag: str, original: bytes) -> Iterator[str]:
    """While the block runs, the tag is an image of the same layers with another configuration; yields its digest."""
    manifest = json.loads(original)
    config = json.loads(registry.blob(repository, manifest["config"]["digest"]))
    config["config"]["Labels"] = {**(config["config"].get("Labels") or {}), "moved": "yes"}
    content = json.dumps(config).encode()
    manifest["config"] |= {"digest": digest_of(content), "size": len(content)}
    other = json.dumps(manifest).encode()
    registry.push_blob(repository, digest_of(content), content)
    try:
        registry.point(repository, tag, other)
        yield digest_of(other)
    finally:
        registry.point(repository, tag, original)


def _forget_image(site: OneHost, tag: str) -> None:
    """
    Remove the image's tag and digest from the host, although a container may run from it.

    Its record is removed, too, because by it the running image would get its tag again.
    """
    digests = f"$(docker image inspect --format '{{{{join .RepoDigests \" \"}}}}' {tag})"
    site.root(
        f"docker rmi --force --no-prune {tag} {digests}; rm {DATA_ROOT}/images/{tag.rpartition(':')[2]}"
    )


# -- what tests check


@contextmanager
def still_serving(site: OneHost) -> Iterator[None]:
    """The same container still runs after the block, was not restarted, and answers."""
    before = container(site)
    yield
    assert container(site) == before
    with site.http() as endpoint:
        assert ask(endpoint.removeprefix("http://")) == ""


def container(site: OneHost) -> tuple[str, str]:
    container = site.container()
    return container["Id"], container["State"]["StartedAt"]


def last_words(done: Done, ours: bool = True) -> str:
    """
    The one line with the reason why a unit failed, as the run repeats it at its end.

    + ours: the line comes from download_weights.py; other programs may print more, for example a traceback
    """
    assert done.code == 1, done.output
    assert ("Traceback" if ours else f'File "{REPOSITORY}') not in done.output
    repeated = [match[1] for match in re.finditer(r"^ *\[h1\]     (.*)$", done.output, re.MULTILINE)]
    ended = next(n for n, line in enumerate(repeated) if line.startswith("tritonhost: failed with exit code"))
    if not ours:
        return " ".join(repeated[:ended])
    said = [line for line in repeated[:ended] if line.startswith("weights: ")]
    # exit code 65: another run would fail in the same way; 1: the line says that another run may succeed
    passing = said[-1].endswith(("run again to resume", "fetched again next run"))
    assert repeated[ended] == f"tritonhost: failed with exit code {1 if passing else 65}"
    return said[-1]


def _without_weights(site: OneHost) -> str:
    """Remove the current release's weights; the server that has them open keeps running. Returns their key."""
    key = site.artifact("weights")
    site.root(f"rm -rf {DATA_ROOT}/weights/{key} {DATA_ROOT}/weights/.{key}.partial")
    return key


def _partial(site: OneHost, key: str) -> list[str]:
    """The files that an interrupted download kept, without huggingface_hub's own records."""
    place = f"{DATA_ROOT}/weights/.{key}.partial"
    return sorted(site.root(f"cd {place} && find . -type f ! -path './.cache/*' -printf '%P\\n'").split())


def sealed_and_clean(site: OneHost, key: str) -> None:
    """The weights are complete according to their manifest, every checksum is right, and no partial directory is left."""
    place = f"{DATA_ROOT}/weights/{key}"
    files = json.loads(site.root(f"cat {place}/manifest.json"))["files"]
    assert "model.safetensors" in files
    sums = "".join(f"{entry['sha256']}  {place}/{name}\n" for name, entry in files.items())
    site.root("sha256sum --check --quiet", stdin=sums)
    assert site.litter() == []


def exists(site: OneHost, path: str) -> bool:
    return site.try_root(f"test -e {path}")[0] == 0


def _said(site: OneHost, unit: str, since: str) -> list[str]:
    return site.journal(since, f"--unit={unit}")


def _clock(site: OneHost, unit: str, since: str) -> Callable[[str], float]:
    """A function: the time in seconds at which the unit first logged some words."""
    lines = site.root(f"journalctl --quiet --output=short-unix --since=@{since} --unit={unit}").splitlines()

    def at(words: str) -> float:
        return next(float(line.split(maxsplit=1)[0]) for line in lines if words in line)

    return at


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


@contextmanager
def meanwhile(work: Callable[[], Done]) -> Iterator[Callable[[], Done]]:
    """Run something while the block runs; yields a function that waits for its result."""
    results: list[Done] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()

    def result() -> Done:
        thread.join()
        return results[0]

    try:
        yield result
    finally:
        thread.join()


# -- faulty sources


@contextmanager
def faults(site: OneHost, *rules: Mapping[str, Any]) -> Iterator[None]:
    site.faults(*rules)
    try:
        yield
    finally:
        site.faults()


def mirror_log(site: OneHost) -> Callable[[], list[str]]:
    """A function: the requests to the mirror since now."""
    path = site.settings.state / "mirror.log"
    begin = path.stat().st_size

    def lines() -> list[str]:
        with path.open(encoding="utf-8") as file:
            file.seek(begin)
            return file.read().splitlines()

    return lines


def count(lines: Sequence[str], *words: str) -> int:
    return len([line for line in lines if all(word in line for word in words)])


def _published(site: OneHost, name: str) -> Path:
    """The hub's copy of a file of the served model."""
    return site.settings.cache / "hub" / "openai-community" / "gpt2-medium" / name


@contextmanager
def _unreachable(site: OneHost, *ports: int) -> Iterator[None]:
    """Refuse this host's connections to these ports of the mirror while the block runs, but not other hosts'."""
    inside = ["ip", "netns", "exec", network.namespace(site.settings, site.number), "nft"]
    listed = ", ".join(map(str, ports))
    rules = (
        "add table inet lab_fault; add chain inet lab_fault output { type filter hook output priority 0; }; "
        f"add rule inet lab_fault output ip daddr {site.settings.gateway} tcp dport {{ {listed} }} reject with tcp reset"
    )
    subprocess.run([*inside, rules], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "delete table inet lab_fault"], check=True)


@dataclass
class Page:
    """The answer at a path; `cut_once_at`: the connection of the first GET ends after so many bytes of it."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    cut_once_at: int | None = None


@dataclass
class Asked:
    """A request, and how many bytes of the body were sent."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class Elsewhere:
    """A server with another origin than the hub, as browsers and HTTP libraries define it."""

    url: str
    requests: list[Asked] = field(default_factory=list)


@contextmanager
def _elsewhere(site: OneHost, pages: Mapping[str, Page]) -> Iterator[Elsewhere]:
    """Serve these pages over HTTP while the block runs; every other path is not found."""
    found = Elsewhere("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = Asked(
                self.command, self.path, {name.lower(): text for name, text in self.headers.items()}
            )
            found.requests.append(asked)
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            body = page.body[begin:]
            self.send_response(206 if "range" in asked.headers else 200)
            if "range" in asked.headers:
                self.send_header("Content-Range", f"bytes {begin}-{len(page.body) - 1}/{len(page.body)}")
            for header in page.headers.items():
                self.send_header(*header)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if page.cut_once_at is not None:
                body, page.cut_once_at = body[: page.cut_once_at], None
                self.close_connection = True
            self.wfile.write(body)
            asked.sent = len(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((site.settings.gateway, 0), Handler) as server:
        found.url = f"http://{site.settings.gateway}:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def _of_pointers(site: OneHost) -> dict[str, Page]:
    """A mirror that was cloned without git-lfs: it answers with the pointer, and with the pointer's hash."""
    record = site.current()["artifacts"]["weights"]["inputs"]
    name, revision = record["repository"], record["revision"]
    contents = {
        each: _published(site, each).read_bytes()
        for each in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    }
    original = _published(site, "model.safetensors").read_bytes()
    contents["model.safetensors"] = (
        "version https://git-lfs.github.com/spec/v1\n"
        f"oid sha256:{sha256(original).hexdigest()}\nsize {len(original)}\n"
    ).encode()
    blobs = {path: sha1(b"blob %d\0" % len(body) + body).hexdigest() for path, body in contents.items()}
    siblings = [
        {"rfilename": path, "size": len(body), "blobId": blobs[path]}
        for path, body in sorted(contents.items())
    ]
    about = {"id": name, "sha": revision, "private": False, "gated": False, "siblings": siblings}
    commit = {"X-Repo-Commit": revision}
    return {
        f"/api/models/{name}/revision/{revision}": Page(
            json.dumps(about).encode(), {"Content-Type": "application/json", **commit}
        ),
        **{
            f"/{name}/resolve/{revision}/{path}": Page(body, {"ETag": f'"{blobs[path]}"', **commit})
            for path, body in contents.items()
        },
    }
