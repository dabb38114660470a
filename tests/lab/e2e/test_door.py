"""OpenAI's API through the gateway and the door, with the exporters beside them, before each kind of server: deploy, clients, limits, upgrade under streams, removal.

A lab of its own with eight GPUs. At the end it prints a table: what each client's feature came to, before which kind.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.lab.e2e import door_clients
from tests.lab.e2e.conftest import KEEP
from tests.lab.e2e.one_host import OneHost, settings_of_lab
from tests.lab.mirror.content import GATED_TOKEN
from tests.lab.settings import network_of
from tests.lab.standins import exporter_images, nginx_image, python_image
from tests.unit.certificates import API_KEY, gateway_files, pair

PORT = 8443
GPUS = "NVIDIA A100-SXM4-40GB:8"
LIMITED, COUNTED = "limited-key-0123456789_ABCDEFGHIJKLMN", "counted-key-0123456789_ABCDEFGHIJKLMN"
KEYS = f"tests {API_KEY}\nlimited {LIMITED} requests_per_minute=30 concurrent=2\ncounted {COUNTED} tokens_per_day=60\n"
STREAMED: dict[str, Any] = {"repository": {"parameters": {"decoupled_mode": True}}}
STREAMS = 50


@dataclass(frozen=True)
class Kind:
    """One way to serve: a profile, what of it is changed, and the features that a door has before it."""

    title: str
    profile: str
    overrides: dict[str, Any]
    features: tuple[Any, ...]
    gated: bool = False


KINDS = (
    Kind(
        "engine, 1 rank",
        "llama-3.1-8b-awq",
        STREAMED,
        (*door_clients.EVERY_KIND, *door_clients.OF_AN_ENGINE),
        gated=True,
    ),
    Kind(
        "engine, 8 ranks",
        "mixtral-8x7b",
        STREAMED,
        (*door_clients.EVERY_KIND, *door_clients.OF_AN_ENGINE),
        gated=True,
    ),
    Kind(
        "llmapi",
        "llama-3.1-8b-llmapi",
        {},
        (*door_clients.EVERY_KIND, *door_clients.OF_THE_LLM_API),
        gated=True,
    ),
)


@dataclass
class Doored:
    """A host with a gateway and a door."""

    host: OneHost
    folder: Path
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.address = self.host.settings.address(1)
        self.made = pair(addresses=[self.address])

    def write(self, **further: Any) -> None:
        """The group data of the next run."""
        node = {"image": f"{exporter_images.NODE_REPOSITORY}:{exporter_images.NODE_TAG}"}
        site = f"{self.host.settings.gateway}/32"
        values = {
            "monitoring": {
                "exporters": {"node": node, "dcgm": {}},
                "bind": self.address,
                "sources": [site],
            },
            "gateway": {
                **gateway_files(self.folder, self.made, KEYS),
                "image": f"{nginx_image.REPOSITORY}:{nginx_image.TAG}",
            },
            "door": {"image": f"{python_image.REPOSITORY}:{python_image.TAG}"},
            "bind_address": self.address,
            "allowed_sources": [site],
            "profile_overrides": self.overrides,
            **further,
        }
        group = self.folder / "group_data"
        group.mkdir(exist_ok=True)
        text = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        (group / "all.py").write_text(text, encoding="utf-8")

    @property
    def options(self) -> list[str]:
        return ["--group-data", str(self.folder / "group_data")]

    def deploy(self, overrides: dict[str, Any] | None = None, code: int = 0) -> str:
        done = self.host.deploy(
            *self.options,
            overrides=overrides,
            environment={"HF_TOKEN": GATED_TOKEN},
        )
        assert done.code == code, done.output
        return done.output

    def client(self, key: str = API_KEY, **options: Any) -> openai.OpenAI:
        context = ssl.create_default_context(cafile=str(self.folder / "certificate"))
        return openai.OpenAI(
            base_url=f"https://{self.address}:{PORT}/v1",
            api_key=key,
            http_client=httpx2.Client(verify=context, timeout=120),
            max_retries=0,
            **options,
        )

    def metrics(self) -> dict[str, float]:
        """The door's numbers: name with labels -> value."""
        context = ssl.create_default_context(cafile=str(self.folder / "certificate"))
        answer = httpx2.get(
            f"https://{self.address}:{PORT}/metrics/door",
            headers={"Authorization": f"Bearer {API_KEY}"},
            verify=context,
        )
        lines = (line.rsplit(" ", 1) for line in answer.text.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, value in lines}


@pytest.fixture(scope="module")
def host() -> Iterator[OneHost]:
    ours = OneHost(settings_of_lab(network_of("LAB_E2E_NET"), LAB_GPUS=GPUS))
    ours.environment |= {"LAB_GPUS": GPUS}
    if not KEEP:
        ours.lab("down")
    ours.lab("up", "1")
    yield ours
    if not KEEP:
        ours.lab("down")


@pytest.fixture(scope="module")
def table(pytestconfig: pytest.Config) -> Iterator[dict[tuple[str, str], dict[str, str]]]:
    """(client, feature) -> kind -> result, printed at the end."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    yield rows
    titles = [kind.title for kind in KINDS]
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n" + f"{'client':9}{'feature':32}" + "".join(f"{title:17}" for title in titles))
        for (client, feature), found in rows.items():
            print(f"{client:9}{feature:32}" + "".join(f"{found.get(title, '-'):17}" for title in titles))


def in_words(kind: Kind) -> str:
    """The part of a test's name."""
    return kind.title.replace(", ", "-").replace(" ", "-")


@pytest.fixture(scope="module", params=KINDS, ids=in_words)
def doored(
    request: pytest.FixtureRequest, host: OneHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Kind, Doored]]:
    """The host with one kind behind gateway and door."""
    kind: Kind = request.param
    host.environment["LAB_MODEL"] = kind.profile
    made = Doored(host, tmp_path_factory.mktemp("door"), kind.overrides)
    made.write()
    output = made.deploy()
    assert "the door gives the golden answers" in output
    yield kind, made


def test_door_is_verified_and_next_run_changes_nothing(doored: tuple[Kind, Doored]) -> None:
    _, made = doored
    assert "converged: release" in made.deploy()
    variables = {"HF_TOKEN": GATED_TOKEN}
    has = ("gateway", "door", "monitoring", "exporters")
    made.host.verified("", *made.options, features=has, environment=variables)


def test_features_of_clients(
    doored: tuple[Kind, Doored], table: dict[tuple[str, str], dict[str, str]]
) -> None:
    kind, made = doored
    wrong = []
    with made.client() as client:
        for feature in kind.features:
            try:
                feature(client, kind.profile)
                result = "ok"
            except Exception as error:
                result = "FAILED"
                wrong.append(f"{feature.__name__}: {type(error).__name__}: {error}")
            table.setdefault(("openai", feature.__name__), {})[kind.title] = result
    body = door_clients.curl_body(kind.profile)
    words = [
        "curl",
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--cacert",
        str(made.folder / "certificate"),
    ]
    words += ["--header", f"Authorization: Bearer {API_KEY}", "--header", "Content-Type: application/json"]
    done = subprocess.run(
        [*words, "--data", body, f"https://{made.address}:{PORT}/v1/chat/completions"],
        capture_output=True,
        text=True,
        check=False,
    )
    good = done.returncode == 0 and json.loads(done.stdout)["choices"][0]["message"]["content"]
    table.setdefault(("curl", "answers_a_chat"), {})[kind.title] = "ok" if good else "FAILED"
    assert wrong == []
    assert good, done.stdout + done.stderr


def test_counts_are_those_of_the_model_s_tokenizer(doored: tuple[Kind, Doored]) -> None:
    """By Hugging Face's own tokenizer, of the weights on the host; of an answer, the tokens that were asked for."""
    from tokenizers import Tokenizer

    kind, made = doored
    key = made.host.artifact("weights")
    place = f"/var/lib/tritonhost/weights/{key}"
    tokenizer = Tokenizer.from_str(made.host.root(f"cat {place}/tokenizer.json"))
    prompt = "What is machine learning? Grüße, 世界!"
    with made.client() as client:
        before = made.metrics()
        found = client.completions.create(model=kind.profile, prompt=prompt, **door_clients.GREEDY)
        after = made.metrics()
    assert found.usage
    assert found.usage.prompt_tokens == len(tokenizer.encode(prompt).ids)
    if found.choices[0].finish_reason == "length" and kind.title != "llmapi":
        assert found.usage.completion_tokens == 12
    if kind.title == "llmapi":
        # the server does not say: the door counts the text
        text = found.choices[0].text
        written = len(tokenizer.encode(text, add_special_tokens=False).ids)
        assert found.usage.completion_tokens == min(written, 12)
    for what, count in (("prompt", found.usage.prompt_tokens), ("completion", found.usage.completion_tokens)):
        name = f'tritonhost_door_{what}_tokens_total{{key="tests",model="{kind.profile}"}}'
        assert after[name] - before.get(name, 0) == count


# the stand-in's small model of the last profile answers at once: nothing is left to be ended
@pytest.mark.parametrize("doored", KINDS[:2], indirect=True, ids=in_words)
def test_work_of_a_client_that_left_ends_in_the_server(doored: tuple[Kind, Doored]) -> None:
    kind, made = doored
    busy = "cat /proc/$(pgrep -f 'triton_python_backend_stub.*tensorrt_llm/1/model.py' | head -n 1)/stat | cut -d ' ' -f 14"
    with made.client() as client:
        stream = client.completions.create(
            model=kind.profile, prompt="Once", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        stream.close()
    until(lambda: made.metrics()["tritonhost_door_streams"] == 0, 5)
    time.sleep(1)
    first = int(made.host.root(busy))
    time.sleep(2)
    # in hundredths of a second of a processor
    assert int(made.host.root(busy)) - first < 30


def until(what: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def upgraded(made: Doored, name: str) -> dict[str, Any]:
    """Changes of the profile that make another release."""
    return {**made.overrides, "server": {"environment": {"NAME_OF_THE_UPGRADE": name}}}


@pytest.mark.parametrize("doored", KINDS[:1], indirect=True, ids=in_words)
class TestOneKind:
    """What does not depend on the kind of the server: once, before the first one."""

    def test_limits_of_keys_are_kept(self, doored: tuple[Kind, Doored]) -> None:
        kind, made = doored
        results: list[Any] = []
        with made.client(LIMITED) as client:
            for _ in range(40):
                try:
                    client.models.list()
                    results.append(200)
                except openai.RateLimitError as refused:
                    results.append((refused.status_code, refused.response.headers["retry-after"]))
                    assert refused.code == "rate_limit_exceeded"
        # a verification before may have used two, and each takes some time
        assert results[:25] == [200] * 25
        assert results.count((429, "2")) >= 5
        assert {*results} == {200, (429, "2")}
        with made.client(COUNTED) as client:
            used = 0
            with pytest.raises(openai.RateLimitError) as full:
                for _ in range(30):
                    found = client.completions.create(model=kind.profile, prompt="One two", max_tokens=10)
                    assert found.usage
                    used += found.usage.total_tokens
            assert full.value.code == "tokens_per_day" and int(full.value.response.headers["retry-after"]) > 0
            assert used >= 40
            # a restart forgets nothing
            time.sleep(1.5)
            made.host.root(
                "systemctl kill --signal=KILL triton-door; docker kill triton-door >/dev/null 2>&1 || :"
            )
            made.host.root("systemctl restart triton-door")
            with pytest.raises(openai.RateLimitError):
                client.completions.create(model=kind.profile, prompt="One two", max_tokens=10)
        with (
            made.client("wrong-key-0123456789_ABCDEFGHIJKLMNO") as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()

    def test_upgrade_under_streams_cuts_none(self, doored: tuple[Kind, Doored]) -> None:
        kind, made = doored
        # fifty clients come and go while times are taken: this test is not about speed
        made.write(front="haproxy", latency_factor=1000.0)
        made.deploy()
        with streams(made, kind) as found:
            time.sleep(5)
            before = made.host.running_release()
            output = made.deploy(upgraded(made, "side-by-side"))
            assert "swap: side by side" in output, output
            assert made.host.running_release() != before
            time.sleep(3)
        assert found.cut == [], found.cut[:3]
        assert found.whole > STREAMS
        fingerprints = sorted(found.fingerprints)
        print(
            f"upgrade side by side: {found.whole} streams, {len(found.cut)} cut, of releases {fingerprints}"
        )
        assert len(fingerprints) == 2

    def test_release_that_the_door_cannot_reach_is_put_back(self, doored: tuple[Kind, Doored]) -> None:
        """A door that hangs: the new release answers over gRPC, and clients of the door would get nothing of it."""
        _, made = doored
        before = made.host.running_release()
        made.host.root("docker pause triton-door")
        try:
            output = made.deploy(upgraded(made, "unreached"), code=1)
        finally:
            made.host.root("docker unpause triton-door")
        assert "/v1/models: found no model (HTTP 0), expected the one that serves" in output, output
        assert made.host.running_release() == before
        made.deploy(upgraded(made, "side-by-side"))

    def test_upgrade_in_place_is_announced_and_said(self, doored: tuple[Kind, Doored]) -> None:
        kind, made = doored
        made.write()
        made.deploy()
        found: list[Any] = []
        stop = threading.Event()

        def ask() -> None:
            with made.client() as client:
                while not stop.is_set():
                    try:
                        client.completions.create(model=kind.profile, prompt="One", max_tokens=2)
                        found.append(200)
                    except openai.APIStatusError as error:
                        found.append(error.status_code)
                    time.sleep(0.1)

        asking = threading.Thread(target=ask)
        asking.start()
        output = made.deploy(upgraded(made, "in-place"))
        stop.set()
        asking.join()
        assert "swap: in place" in output, output
        assert {*found} <= {200, 502, 503} and 503 in found, {*found}

    def test_slower_release_is_put_back_by_its_speed(self, doored: tuple[Kind, Doored]) -> None:
        """A decoder that takes longer for each token answers rightly, and no other gate is as close."""
        _, made = doored
        made.write(bench_gate="smoke", latency_factor=1000.0)
        # the first release that is measured passes, and is what the next one is compared with
        made.deploy(upgraded(made, "measured"))
        before = made.host.running_release()
        slower = {**made.overrides, "server": {"environment": {"LAB_TOKEN_SECONDS": "0.2"}}}
        output = made.deploy(slower, code=1)
        assert "tokens a second, expected at least 0.8 of the" in output, output
        assert made.host.running_release() == before
        made.write()
        made.deploy()

    def test_door_that_is_not_wanted_is_stopped(self, doored: tuple[Kind, Doored]) -> None:
        _, made = doored
        made.write(door=None)
        made.deploy()
        assert made.host.try_root("systemctl is-active triton-door")[1] == "inactive"
        with made.client() as client, pytest.raises(openai.NotFoundError):
            client.models.list()
        assert "converged: release" in made.deploy()
        made.write()
        made.deploy()


@dataclass
class Streams:
    """What became of streams that were begun one after the other by many clients."""

    whole: int = 0
    cut: list[str] = field(default_factory=list)
    fingerprints: set[str] = field(default_factory=set)


@contextmanager
def streams(made: Doored, kind: Kind) -> Iterator[Streams]:
    """Clients that each read one stream after the other while the block runs; each stream must be whole."""
    found, stop, lock = Streams(), threading.Event(), threading.Lock()

    def read() -> None:
        with made.client() as client:
            while not stop.is_set():
                problem, fingerprint = _streamed(client, kind.profile)
                with lock:
                    found.whole += not problem
                    found.cut += [problem] if problem else []
                    found.fingerprints |= {fingerprint} if fingerprint else set()

    running = [threading.Thread(target=read) for _ in range(STREAMS)]
    for one in running:
        one.start()
    try:
        yield found
    finally:
        stop.set()
        for one in running:
            one.join()


def _streamed(client: openai.OpenAI, model: str) -> tuple[str, str]:
    """What is wrong with one stream, and the release that made it."""
    try:
        options: Any = {"include_usage": True}
        parts = list(
            client.completions.create(
                model=model,
                prompt="One",
                stream=True,
                stream_options=options,
                max_tokens=20,
                temperature=0,
                extra_body={"ignore_eos": True},
            )
        )
    except openai.APIError as error:
        return f"{type(error).__name__}: {error}", ""
    last = parts[-1]
    whole = last.usage is not None and last.usage.completion_tokens == 20
    return "" if whole else f"ended early: {last}", str(last.system_fingerprint)


def test_nothing_of_a_key_is_in_the_door_s_journal(doored: tuple[Kind, Doored]) -> None:
    _, made = doored
    said = made.host.root("journalctl --no-pager --unit triton-door; docker inspect triton-door")
    for key in (API_KEY, LIMITED, COUNTED):
        assert key not in said
