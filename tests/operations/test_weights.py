"""What the hub says of a model is read before its weights are downloaded, and refused there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from operations.facts.artifacts import Artifact, ArtifactState, Described
from operations.plan.capacity.described import Description
from operations.plan.release import Release
from operations.weights import fitting
from tests.operations.harness import Host, commands_of, refusal_of
from tests.unit.builders import release

WANTED = release()
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def on(described: Description, complete: bool = False, wanted: Release = WANTED) -> tuple[Host, list[Any]]:
    host = Host({ArtifactState: Artifact(complete, ""), Described: described})
    return host, commands_of(fitting, host, release=wanted)


def test_complete_engine_skips_the_description_check() -> None:
    host, commands = on(Description({"model_type": "qwen2"}), complete=True)
    assert (commands, host.noop_description) == ([], "the engine is complete")


def test_missing_description_is_not_checked() -> None:
    host, commands = on(Description())
    assert (commands, host.noop_description) == ([], "the hub's files are not downloaded yet")


def test_model_of_the_profile_fits() -> None:
    host, commands = on(Description(LLAMA))
    assert (commands, host.noop_description) == ([], "the model fits")


def test_other_model_type_is_refused_on_its_host_only() -> None:
    _, commands = on(Description({**LLAMA, "model_type": "qwen2"}))
    assert refusal_of(commands).startswith("config.json: model_type: found qwen2")


def test_complete_weights_are_read_instead_of_description() -> None:
    host, _ = on(Description(LLAMA))
    step = WANTED.recipe.descriptions["weights"]
    assert step.unless == WANTED.artifact("weights")
    assert host.asked[-1] == ("Described", {"paths": [step.unless.path, step.artifact.path]})


def test_description_is_not_part_of_a_release() -> None:
    [description] = WANTED.descriptions
    assert description not in WANTED.artifacts and description.unit in WANTED.units
    assert description.inputs == WANTED.artifact("weights").inputs
    assert json.loads(description.files["request.json"])["type"] == "description"


@pytest.mark.parametrize("kind", ["description", "weights"])
def test_files_of_a_directory_become_a_description(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "a place"
    place.mkdir()
    # a file may hold any text, also one that looks like what the fact reads
    (place / "config.json").write_text(json.dumps({"model_type": "a\tb", "x": "bytes\t7"}, indent=2), "utf-8")
    (place / "manifest.json").write_text("{}", "utf-8")
    if kind == "weights":
        (place / "model-1.safetensors").write_bytes(b"12345")
    else:
        (place / "hub-sizes.json").write_text('{"model-1.safetensors": 5}', "utf-8")
    command = Described().command([str(tmp_path / "none"), str(place)])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    found = Described().process(done.stdout.splitlines())
    assert found == Description({"model_type": "a\tb", "x": "bytes\t7"}, {}, 5)


def test_files_that_are_not_json_give_no_description(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}", "utf-8")
    (tmp_path / "config.json").write_text("<html>", "utf-8")
    (tmp_path / "hf_quant_config.json").write_text("[" * 5000, "utf-8")
    command = Described().command([str(tmp_path)])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert Described().process(done.stdout.splitlines()) == Description()
