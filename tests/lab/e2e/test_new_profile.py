"""From a model's name to its answer: `new`, deploy, recorded; other weights answer differently, are held back, accepted, deployed."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab.e2e.one_host import Done, OneHost
from tests.lab.mirror import hubindex
from tests.lab.mirror.content import GATED_TOKEN
from tests.lab.settings import REPOSITORY

# The lab's weights -> the options of `new`: one of each kind and family
MODELS = {
    "tritonhost-lab/smollm2-135m-instruct": ("engine", "llama"),
    "openai-community/gpt2-medium": ("engine", "gpt"),
    "meta-llama/Llama-3.1-8B-Instruct": ("llmapi", ""),
}
# Further families, which no profile of this repository has -> the kind that `new` chooses
FAMILIES = {
    "mistralai/Mistral-7B-Instruct-v0.3": "engine",
    "Qwen/Qwen2.5-0.5B-Instruct": "llmapi",
    "Qwen/Qwen3-8B": "llmapi",
    "microsoft/Phi-3-mini-4k-instruct": "llmapi",
}
EMBEDDINGS = ("embed_tokens.weight", "wte.weight")


class Hub:
    """A name on the lab's hub that one test has for itself, because all labs of a machine share the hub's files."""

    def __init__(self, site: OneHost, source: str, folder: Path) -> None:
        self.hub = site.settings.cache / "hub"
        self.name = f"tritonhost-lab/new-{source.partition('/')[2].lower()}-{site.settings.tag}"
        self.folder = folder
        shutil.copytree((self.hub / source).resolve(), folder)

    def publish(self) -> str:
        """The revision of the files as they are."""
        return hubindex.publish(self.hub, self.name, self.folder)

    def change(self) -> None:
        """Each word gets the vector of the word before it: the same model, with other answers."""
        for path in self.folder.glob("*.safetensors"):
            content = bytearray(path.read_bytes())
            size = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + size])
            for name, tensor in header.items():
                if name.endswith(EMBEDDINGS):
                    first, last = (8 + size + offset for offset in tensor["data_offsets"])
                    row = (last - first) // tensor["shape"][0]
                    content[first:last] = content[last - row : last] + content[first : last - row]
            path.write_bytes(content)

    def remove(self) -> None:
        for path in (self.hub / self.name, self.hub / f"{self.name}.json"):
            with suppress(FileNotFoundError):
                path.unlink()


@pytest.fixture
def project(site: OneHost, tmp_path: Path) -> Path:
    """A checkout whose profiles are its own; everything else is this one's."""
    inventories = tmp_path / "project" / "inventories"
    (inventories / "models").mkdir(parents=True)
    links = [path for path in REPOSITORY.iterdir() if path.name not in ("inventories", ".git", "build")]
    for path in (*links, *(path for path in (REPOSITORY / "inventories").iterdir() if path.name != "models")):
        (inventories.parent / path.relative_to(REPOSITORY)).symlink_to(path)
    return inventories.parent


@pytest.fixture(params=MODELS)
def hub(site: OneHost, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hub]:
    found = Hub(site, request.param, tmp_path / "weights")
    yield found
    found.remove()


def write_profile(site: OneHost, name: str, environment: Mapping[str, str], *words: str) -> Done:
    """`new` for a model of the lab's hub, as the profile from-hub."""
    return site.run(
        *(sys.executable, "-m", "operations.plan", "new", name, "--hub", site.settings.hub),
        *("--name", "from-hub", "--gpus", "NVIDIA A10:1"),
        # the lab's server has no GPU: no golden request behind thousands of words
        *("--context", "512"),
        *words,
        environment=environment,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_deployed_by_its_name(site: OneHost, project: Path, name: str) -> None:
    environment = {
        "TRITONHOST_PROJECT": str(project),
        "LAB_MODEL": "from-hub",
        "HF_TOKEN": GATED_TOKEN,
    }
    made = write_profile(site, name, environment)
    assert made.code == 0, made.output
    assert f"kind {FAMILIES[name]}" in made.output
    assert "warning" not in made.output
    done = site.deploy(environment=environment)
    assert done.code == 0, done.output
    golden = site.settings.state / "golden" / "from-hub.json"
    [record] = json.loads(golden.read_text("utf-8"))["records"]
    running = site.running_release()
    assert record["release"] == running and record["answers"][0]["text"]
    assert f"converged: release {running}" in site.deploy(environment=environment).output
    site.verified("test_release or test_service", environment=environment)
    golden.unlink()


def test_name_leads_to_an_answer_that_is_kept(
    site: OneHost, hub: Hub, project: Path, request: pytest.FixtureRequest
) -> None:
    kind = MODELS[request.node.callspec.params["hub"]][0]
    environment = {"TRITONHOST_PROJECT": str(project), "LAB_MODEL": "from-hub"}

    def new(*words: str) -> Done:
        return write_profile(site, hub.name, environment, "--kind", kind, *words)

    first = hub.publish()
    made = new()
    assert made.code == 0, made.output
    assert f"kind {kind}" in made.output and first[:12] in made.output
    done = site.deploy(environment=environment)
    assert done.code == 0, done.output
    golden = site.settings.state / "golden" / "from-hub.json"
    [record] = json.loads(golden.read_text("utf-8"))["records"]
    running = site.running_release()
    assert record["release"] == running and record["answers"][0]["text"]
    assert f"converged: release {running}" in site.deploy(environment=environment).output

    hub.change()
    assert hub.publish() != first
    assert new("--force").code == 0
    held = site.deploy(environment=environment)
    assert held.code != 0
    assert "of the words agree, expected 60%" in held.output
    assert f"previous release {running} was put back and serves" in held.output
    assert "Traceback" not in held.output
    assert site.running_release() == running
    assert "found failed" in site.deploy(environment=environment).output

    command = [sys.executable, "-m", "operations.golden_answers", "accept", "from-hub"]
    accepted = site.run(*command, "--directory", str(golden.parent), environment=environment)
    assert accepted.code == 0, accepted.output
    done = site.deploy(environment=environment)
    assert done.code == 0, done.output
    assert site.running_release() != running
    texts = [one["answers"][0]["text"] for one in json.loads(golden.read_text("utf-8"))["records"]]
    assert len(texts) == len(set(texts)) == 2
    site.verified("test_release or test_service", environment=environment)
    golden.unlink()


def test_weights_are_those_of_the_hub(site: OneHost) -> None:
    """The control of the test above: the lab's weights have an embedding that `change` finds."""
    for source in MODELS:
        folder = site.settings.cache / "hub" / source
        heads = [path.read_bytes()[8:2_000_000] for path in folder.glob("*.safetensors")]
        assert any(name.encode() in head for head in heads for name in EMBEDDINGS), source


def test_lock_finds_what_the_lab_serves(site: OneHost, project: Path) -> None:
    environment = {"TRITONHOST_PROJECT": str(project)}
    command = [sys.executable, "-m", "operations.lock_inventory", "inventories/lab.py"]
    done = site.run(*command, environment=environment)
    assert done.code == 0, done.output
    found = tomllib.loads((project / "inventories" / "lock.toml").read_text("utf-8"))
    digests = json.loads(site.settings.record.read_text("utf-8"))["images"]
    assert {name: entry["digest"] for name, entry in found["images"].items()}.items() <= digests.items()
    assert found["images"] and found["models"] and found["packages"]
    assert site.run(*command, "--check", environment=environment).code == 0
