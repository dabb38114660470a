"""Sources that misbehave or are away: what the host asked them, what the person reads, and that nobody who is served notices."""

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

from tests.lab import network
from tests.lab.e2e.one_host import DATA_ROOT, Done, OneHost
from tests.lab.faults.conftest import Table
from tests.lab.faults.load import ask
from tests.lab.mirror.hubindex import load
from tests.lab.settings import REPOSITORY

# A gated model of 258 MiB, which takes everything: a checkout from git, an image that is built, and more than one of the
# pieces in which huggingface_hub 2.4 writes a file, 10 MiB each: what comes before the first of them is not kept.
GATED_MODEL = {"LAB_MODEL": "smollm2-135m"}
GATED = {"weights": {"repository": "tritonhost-lab/smollm2-135m-gated", "gated": True}}
TOKEN = "hf_lab_token_for_tests"
PIECE = 10 << 20
ATTEMPTS = 6  # of files/image/download_weights.py
STALL_S = 10  # huggingface_hub's HF_HUB_DOWNLOAD_TIMEOUT: so long without a byte, and the request is given up
API = r"^/api/models/"
HTTP, HUB, REGISTRY = 8000, 8001, 5000


def test_passing_faults_of_the_hub_are_waited_out_in_one_run(converged: OneHost, table: Table) -> None:
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
    at = _clock(converged, f"tritonhost-weights-{key}.service", since)

    waited = at("1/5 config.json") - at("attempt 1 of 6: HTTP 429; again in 3 s")
    assert 3 <= waited < 8
    assert count(asked, "?blobs=true") == 2, "refused once, then answered"
    table.add(f"hub: 429 with Retry-After 3, waited {waited:.1f} s", 1, 1)

    assert count(asked, 'config.json HTTP/1.1" 500') == 3
    table.add("hub: 500 three times", 1, 1)

    stalled = at("4/5 tokenizer.json") - at("3/5 model.safetensors")
    assert STALL_S <= stalled < 2 * STALL_S
    table.add(f"hub: stall in a file, given up and got within {stalled:.1f} s", 1, 1)

    assert count(asked, '/tokenizer.json HTTP/1.1" 200', "GET") == 2
    table.add("hub: one byte short, fetched again", 1, 1)
    sealed_and_clean(converged, key)


def test_lasting_faults_of_the_hub_end_the_run_and_seal_nothing(converged: OneHost, table: Table) -> None:
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
            "503 for ever",
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

    # the hub comes back while the run still asks: a connection refused is a passing fault
    since = converged.now()
    unit = f"tritonhost-weights-{key}.service"
    with meanwhile(lambda: converged.deploy("--data", "soak_s=0")) as deploying:
        with _unreachable(converged, HUB):
            until(lambda: "attempt 2 of 6" in " ".join(_said(converged, unit, since)))
        done = deploying()
    assert done.code == 0, done.output
    sealed_and_clean(converged, key)
    for fault, after in seconds.items():
        table.add(f"hub: {fault}, refused after {after:.1f} s", 1, 1)
    table.add("hub: connection refused, back before the third attempt", 1, 1)


def test_gated_model_its_token_and_a_connection_that_breaks(converged: OneHost, table: Table) -> None:
    """Every source of a new model fails once, each serves nobody worse; then the model is made, in one run."""
    before = converged.running_release()
    became: list[str] = []
    # left by an earlier run of this test, where the lab was kept
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
    # the preflight asks the hub itself, before anything is made
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
            took = refused(rf"weights: {name}: {converged.settings.hub}: HTTP 404; .*")
        assert other.requests, "it was followed"
        assert not [each for each in other.requests if "authorization" in each.headers]
    became.append(f"hub: metadata redirected to another host, no token there, after {took:.1f} s")

    # the file itself from a storage elsewhere, as the public hub does it, and its connection breaks at the half
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
        table.add(fault, 1, 1)


def test_what_is_here_is_made_and_served_with_every_source_away(converged: OneHost, table: Table) -> None:
    release, engine = converged.running_release(), converged.artifact("engine")
    converged.root(f"rm -rf {DATA_ROOT}/engines/{engine} {DATA_ROOT}/releases/{release}")
    with _unreachable(converged, HTTP, HUB, REGISTRY):
        # looking tells a host that lacks artifacts from one whose sources are away: only the first one needs them
        done = converged.deploy("--data", "soak_s=0")
    assert done.code == 0, done.output
    assert converged.running_release() == release
    table.add("dnf, git, hub and registry away, engine and release to be made", 1, 1, artifacts_lost=1)


def test_source_that_is_needed_and_away_is_named(converged: OneHost, table: Table) -> None:
    tag = converged.current()["image"]["tag"]
    # with its record, by which the tag would come back to the image that still runs, from nowhere but the host
    converged.root(
        f"docker rmi --force --no-prune {tag} $(docker image inspect --format '{{{{join .RepoDigests \" \"}}}}' {tag}); "
        f"rm {DATA_ROOT}/images/{tag.rpartition(':')[2]}"
    )
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


# -- what a test looks at


@contextmanager
def still_serving(site: OneHost) -> Iterator[None]:
    """The same container serves after the block, since the same time, and answers."""
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
    The one line that says why a unit failed, as the run repeats it at its end.

    + ours: it is a line of download_weights.py; other programs may say more, a traceback of their own among it
    """
    assert done.code == 1, done.output
    assert ("Traceback" if ours else f'File "{REPOSITORY}') not in done.output
    repeated = [match[1] for match in re.finditer(r"^ *\[h1\]     (.*)$", done.output, re.MULTILINE)]
    ended = next(n for n, line in enumerate(repeated) if line.startswith("tritonhost: failed with exit code"))
    if not ours:
        return " ".join(repeated[:ended])
    said = [line for line in repeated[:ended] if line.startswith("weights: ")]
    assert repeated[ended] == "tritonhost: failed with exit code 1"
    return said[-1]


def _without_weights(site: OneHost) -> str:
    """The current release's weights are gone, though the server that has them open goes on; their key."""
    key = site.artifact("weights")
    site.root(f"rm -rf {DATA_ROOT}/weights/{key} {DATA_ROOT}/weights/.{key}.partial")
    return key


def _partial(site: OneHost, key: str) -> list[str]:
    """What an interrupted download has kept, but for huggingface_hub's own records."""
    place = f"{DATA_ROOT}/weights/.{key}.partial"
    return sorted(site.root(f"cd {place} && find . -type f ! -path './.cache/*' -printf '%P\\n'").split())


def sealed_and_clean(site: OneHost, key: str) -> None:
    """The weights are complete by their own manifest, every checksum of it is right, and nothing else is left."""
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
    """When the unit first said something, in seconds."""
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
    """Something runs while the block does; what is handed out waits for it."""
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


# -- sources that misbehave


@contextmanager
def faults(site: OneHost, *rules: Mapping[str, Any]) -> Iterator[None]:
    site.faults(*rules)
    try:
        yield
    finally:
        site.faults()


def mirror_log(site: OneHost) -> Callable[[], list[str]]:
    """What the mirror was asked from now on."""
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
    """A file of the served model, as the hub has it."""
    return site.settings.cache / "hub" / "openai-community" / "gpt2-medium" / name


@contextmanager
def _unreachable(site: OneHost, *ports: int) -> Iterator[None]:
    """The host's connections to these ports of the mirror are refused; other hosts' are not."""
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
    """What is at a path; `cut_once_at`: the connection of the first GET ends after so many bytes of it."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    cut_once_at: int | None = None


@dataclass
class Asked:
    """A request, and how many bytes of a body it got."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class Elsewhere:
    """Another host than the hub: another origin, as browsers and HTTP libraries tell them apart."""

    url: str
    requests: list[Asked] = field(default_factory=list)


@contextmanager
def _elsewhere(site: OneHost, pages: Mapping[str, Page]) -> Iterator[Elsewhere]:
    """These pages over HTTP while the block runs; every other path is not found."""
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
    """A mirror that was cloned without git-lfs: it hands out the pointer, and states the pointer's own hash."""
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
