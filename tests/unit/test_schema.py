"""The JSON Schemas for editors: current, valid, and true of what is shipped."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]

from operations.plan.__main__ import main
from operations.plan.profile.migrate import migrated
from operations.plan.profile.profiles import MODELS_DIRECTORY
from operations.plan.schema import OF_TOML, SCHEMAS, schema_text

PROJECT = Path(__file__).resolve().parents[2]
PROFILES = sorted(MODELS_DIRECTORY.glob("*.toml"))
HOSTS = """
[hosts.gpu-1]
address = "10.0.0.11"
model = "llama-3.1-8b-awq"
http_port = 9000
ssh_port = 2222
_sudo = true

[oci]
compartments = ["ocid1.compartment.oc1..aaaa"]
shape = "BM.GPU.A100*"
"""


def problems(name: str, text: str) -> list[str]:
    """What an editor would mark in a TOML file, by the path of each key."""
    found = Draft7Validator(json.loads(schema_text(name))).iter_errors(tomllib.loads(text))
    return sorted(".".join(map(str, error.absolute_path)) + ": " + error.message for error in found)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_file_is_current(name: str) -> None:
    path = f"files/schema/{name}.json"
    assert (PROJECT / path).read_text("utf-8") == schema_text(name), (
        f"write it again: python -m operations.plan schema {name} > {path}"
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_valid_and_has_every_definition(name: str) -> None:
    schema = json.loads(schema_text(name))
    Draft7Validator.check_schema(schema)
    waiting: list[Any] = [schema]
    references = set()
    while waiting:
        node = waiting.pop()
        waiting.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        if isinstance(node, dict):
            assert name not in OF_TOML or node.get("type") != "null"
            assert "$defs" not in node
            references |= {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    assert references == {f"#/definitions/{model}" for model in schema["definitions"]}


def test_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "inventory"]) == 0
    assert capsys.readouterr().out == schema_text("inventory")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_shipped_profile_fits_the_schema_it_names(path: Path) -> None:
    first, blank, *_ = path.read_text("utf-8").splitlines()
    directive, _, place = first.partition(" ")
    assert (directive, blank) == ("#:schema", "")
    assert (path.parent / place).resolve() == PROJECT / "files/schema/profile.json"
    assert problems("profile", path.read_text("utf-8")) == []


def test_migrated_profile_names_the_schema_and_fits_it() -> None:
    text = migrated("llama-2-7b")
    assert text.startswith("#:schema ../../files/schema/profile.json\n\n")
    assert problems("profile", text) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[checkpoint]", "[chekpoint]"),
        ("count = 1", 'count = "1"'),
        ('kind = "engine"', 'kind = "engin"'),
        ('dtype = "float16"', 'dtype = "float8"'),
    ],
)
def test_profile_schema_marks_a_mistake(old: str, new: str) -> None:
    text = (MODELS_DIRECTORY / "gpt2-medium.toml").read_text("utf-8")
    assert old in text
    assert problems("profile", text.replace(old, new, 1))


def test_inventory_schema_accepts_hosts_and_oci() -> None:
    assert problems("inventory", HOSTS) == []
    assert problems("inventory", "") == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("http_port = 9000", "http_prot = 9000"),
        ("http_port = 9000", "http_port = 80"),
        ("[hosts.gpu-1]", "[host.gpu-1]"),
        ("ssh_port = 2222", 'ssh_password = "secret"'),
        ('compartments = ["ocid1.compartment.oc1..aaaa"]', 'compartment = "ocid1.compartment.oc1..aaaa"'),
        ("ocid1.compartment", "ocid1.instance"),
    ],
)
def test_inventory_schema_marks_a_mistake(old: str, new: str) -> None:
    assert old in HOSTS
    assert problems("inventory", HOSTS.replace(old, new))
