"""The pages about models, followed: profiles are loaded and planned, commands are run, tables are the code's."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import tomllib
import types
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from operations.documents import batches
from operations.plan.__main__ import GROUP_DATA, main
from operations.plan.catalog.flags import TRTLLM_BUILD
from operations.plan.deployable import check_deployable
from operations.plan.explain import KNOWN_GPUS, UNKNOWN_DIGEST, gpus_from
from operations.plan.inventory.hosts import read_group_data, settings_of, static_hosts, tables_from_toml
from operations.plan.inventory.settings import from_host_data
from operations.plan.planning import plan_release
from operations.plan.profile import profiles
from operations.plan.profile.architecture import Architecture
from operations.plan.profile.model_repository import DEFAULTS, text_of
from operations.plan.profile.own_models import filled
from operations.plan.profile.profiles import (
    EngineProfile,
    LlmApiProfile,
    PlanProfile,
    Profile,
    load_profile,
    plain_image,
    profile_names,
)
from operations.plan.profile.tables import Weights

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
HOW_TO, DOCUMENTS = DOCS / "how-to" / "models.md", DOCS / "how-to" / "documents.md"
REFERENCE = [DOCS / "reference" / name for name in ("profile.md", "models.md", "config-json.md")]
GUIDES = sorted((DOCS / "guides").glob("*.md"))
PAGE = "\n".join(path.read_text(encoding="utf-8") for path in (HOW_TO, DOCUMENTS, *REFERENCE, *GUIDES))
PROFILE = "# inventories/models/"
INVENTORY = "# inventories/oci.toml"
# a day on which the waivers of the page's inventories hold
WRITTEN = date(2026, 11, 21)


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def name_of(block: str) -> str:
    """The file a block says it is: its first line."""
    return Path(block.splitlines()[0].removeprefix("# ")).stem


PROFILES = [block for block in blocks("toml") if block.startswith(PROFILE)]
INVENTORIES = [block for block in blocks("toml") if block.startswith(INVENTORY)]
COMMANDS = re.findall(r"python -m (operations\.plan [^`\n]+)", PAGE)


def section(title: str) -> str:
    """The text from one heading to the next of its level or above, on whichever page it is."""
    head = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert head, f"no heading {title}"
    rest = PAGE[head.end() :]
    end = re.search(rf"^#{{1,{len(head[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """The cells of every table row that is neither head nor rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = [i for i, row in enumerate(cells) if set("".join(row)) <= set("-:")]
    return [row for i, row in enumerate(cells) if i not in rules and i + 1 not in rules]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of profiles with the page's among them."""
    directory = tmp_path / "models"
    shutil.copytree(profiles.MODELS_DIRECTORY, directory)
    for block in PROFILES:
        (directory / f"{name_of(block)}.toml").write_text(block, encoding="utf-8")
    monkeypatch.setattr(profiles, "MODELS_DIRECTORY", directory)
    return directory


def run(command: str, models: Path) -> int:
    """One command of the page, with the temporary directory in the place of inventories/models."""
    words = shlex.split(command.split(" > ")[0])[1:]
    return main([word.replace("inventories/models", str(models)) for word in words if word != "…"])


def test_every_toml_block_is_a_profile_or_an_inventory() -> None:
    assert PROFILES
    assert len(PROFILES) + len(INVENTORIES) == len(blocks("toml"))


@pytest.mark.parametrize("block", PROFILES, ids=name_of)
# those that every release of the page runs on
@pytest.mark.parametrize("gpu", [name for name, (of, _) in KNOWN_GPUS.items() if 8 <= float(of) < 10])
def test_a_profile_of_the_page_can_be_planned(block: str, gpu: str, models: Path) -> None:
    name = name_of(block)
    profile = load_profile(name)
    data = read_group_data(GROUP_DATA / "all.py")
    images = {f"nvidia/tritonserver:{profile.image.release}-trtllm-python-py3": UNKNOWN_DIGEST}
    settings = from_host_data({**data, "model": name, "image_digests": images}, "page")
    release = plan_release(settings, gpus_from(f"{gpu}:1"))
    assert not release.warnings
    assert release.profile == profile


@pytest.mark.parametrize("block", INVENTORIES)
def test_an_inventory_of_the_page_is_accepted(block: str, models: Path, tmp_path: Path) -> None:
    file = tmp_path / "oci.toml"
    file.write_text(block, encoding="utf-8")
    (settings,) = settings_of(static_hosts(tables_from_toml(file), file.name), "oci", GROUP_DATA).values()
    assert settings.model in profile_names()
    # the page has them in group_data, beside those of every other release
    profile = load_profile(settings.model, settings.profile_overrides)
    images = [f"nvidia/tritonserver:{profile.image.release}-trtllm-python-py3", plain_image(profile)]
    images += [profile.documents.image] if isinstance(profile, PlanProfile) else []
    digests = {**dict.fromkeys(images, UNKNOWN_DIGEST), **settings.image_digests}
    check_deployable("gpu-1", settings.model_copy(update={"image_digests": digests}), WRITTEN)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_succeeds(command: str, models: Path) -> None:
    assert run(command, models) == 0


def test_page_shows_every_command() -> None:
    assert {command.split()[1] for command in COMMANDS} == {
        "profiles",
        "matrix",
        "check",
        "explain",
        "migrate",
    }


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("max_seq_len =", "max_seq_lenn =", "did you mean max_seq_len?"),
        ("[checkpoint]", "[chekpoint]", "did you mean checkpoint?"),
        ("revision = ", "revision = 'main' #", "expected a 40-hex commit"),
    ],
)
def test_check_reports_an_error_and_exits_with_2(
    right: str, wrong: str, complaint: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = next(block for block in PROFILES if right in block and 'kind = "engine"' in block)
    (check,) = (command for command in COMMANDS if command.split()[1] == "check")
    file = models / Path(check.split()[-1]).name
    file.write_text(engine.replace(right, wrong, 1), encoding="utf-8")
    assert run(check, models) == 2
    printed = capsys.readouterr()
    assert complaint in printed.out + printed.err


def test_explain_prints_what_the_page_shows(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = blocks("text")
    explain = next(command for command in COMMANDS if command.split()[1] == "explain")
    assert run(explain, models) == 0
    printed = capsys.readouterr().out
    at = 0
    for part in shown.split("…\n"):
        found = printed.find(part, at)
        assert found >= 0, f"explain does not print, after what stands before it:\n{part}"
        at = found + len(part)


# -- the kinds' keys


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a profile with its field, dotted; the page writes … for the name of an encoder."""
    for name, field in model.model_fields.items():
        dotted = f"{prefix}{name}"
        parts = [field.annotation, *get_args(field.annotation)]
        nested = [p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)]
        if not nested or (prefix and nested[0] is Weights):
            yield dotted, field
        elif get_origin(field.annotation) is dict:
            yield dotted, field
            yield from keys_of(nested[0], f"{dotted}.….")
        else:
            more = "[]" if get_origin(field.annotation) is list else ""
            yield from keys_of(nested[0], f"{dotted}{more}.")


def documented(kind: str) -> dict[str, str]:
    """Key -> default, as the page has them for one kind."""
    found = {}
    for title in ("Every kind", f"Kind `{kind}`"):
        for row in rows(section(title)):
            for key in re.findall(r"`([^`]+)`", row[0]):
                found[key] = row[1]
    return found


def default_of(field: Any) -> str:
    """A field's default as the page writes it."""
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default is PydanticUndefined else field.default
    return "none" if value is None else f"`{json.dumps(value)}`"


@pytest.mark.parametrize(
    ("kind", "model"), [("engine", EngineProfile), ("llmapi", LlmApiProfile), ("plan", PlanProfile)]
)
def test_keys_of_a_kind_match_the_code(kind: str, model: type[BaseModel]) -> None:
    wanted = {key: default_of(field) for key, field in keys_of(model)}
    found = documented(kind)
    assert found == wanted


@pytest.mark.parametrize("kind", profiles.KINDS)
def test_every_kind_is_introduced(kind: str) -> None:
    assert kind in {row[0].strip("`") for row in rows(section("Choose the kind"))}


# -- the profiles of this repository


def weights_of(profile: Profile) -> str:
    if isinstance(profile, PlanProfile):
        return ", ".join(encoder.weights.repository for encoder in profile.encoders.values())
    return profile.weights.repository + (", gated" if profile.gated else "")


def test_the_profiles_named_are_those_of_the_inventory() -> None:
    found = {row[0].strip("`"): row[1:5] for row in rows(section("The profiles"))}
    wanted = {}
    for name in profile_names():
        profile = load_profile(name)
        hardware, server = profile.hardware, profile.server
        wanted[name] = [
            weights_of(profile),
            f"{profile.image.release}, {profile.image.source}",
            f"{hardware.count} x {hardware.gpu}" if hardware else "any one",
            f"{server.http_port}, {server.grpc_port}, {server.metrics_port}",
        ]
    assert found == wanted


# -- config.json


@pytest.mark.parametrize(("kind", "column"), [("mixtral", 1), ("gpt2", 2)])
def test_architecture_reads_the_keys_the_page_names(kind: str, column: int) -> None:
    table = {row[0].strip("`"): row[column] for row in rows(section("The keys"))}
    assert list(table) == list(Architecture.model_fields)
    numbers = {
        "hidden_size": 576,
        "layers": 30,
        "heads": 9,
        "kv_heads": 9 if kind == "gpt2" else 3,
        "head_size": 64,
        "intermediate_size": 1536,
        "vocabulary": 49152,
        "max_positions": 8192,
        "experts": 1 if kind == "gpt2" else 4,
        "tied_embeddings": True,
    }
    config = {"model_type": kind}
    for field, value in numbers.items():
        if name := re.match(r"`(\w+)`(?! /)", table[field]):
            config[name[1]] = value  # type: ignore[assignment]
    read = Architecture.from_config(config).model_dump()
    assert read == {
        **numbers,
        "gated_mlp": json.loads(table["gated_mlp"]),
        "attention_bias": False,
        "head_norms": False,
        "layer_norms": 2,
        "rope_type": None,
    }


# -- the guides


@pytest.mark.parametrize(
    ("guide", "name"),
    [
        ("Guide A: Mistral-Nemo", "mistral-nemo"),
        ("Guide C: Llama 3.1 AWQ", "llama-3.1-8b-awq"),
        ("Guide D: Llama 2", "llama-2-7b"),
    ],
)
def test_guide_values_are_in_the_profile(guide: str, name: str) -> None:
    profile = load_profile(name)
    assert isinstance(profile, EngineProfile)
    ours = {**DEFAULTS, **profile.repository.parameters}
    given = [
        pair
        for row in rows(section(guide))
        for span in re.findall(r"`([^`]+)`", row[0])
        for pair in re.findall(r"^([a-z_]+):([\w.]+)$", span)
        if pair[0] != "tokenizer_type"
    ]
    assert len(given) > 10
    for key, value in given:
        assert text_of(ours[key]) == value.lower(), key


def test_page_names_every_stage_of_deploy() -> None:
    # the branch of the hosts that serve; that of the monitoring servers has no models
    branch = next(
        n for n in ast.parse((PROJECT / "deploy.py").read_text("utf-8")).body if isinstance(n, ast.If)
    )
    stages = {ast.unparse(node) for node in ast.walk(branch) if isinstance(node, ast.Attribute)}
    modules = "|".join({stage.split(".")[0] for stage in stages})
    guides = "\n".join(path.read_text(encoding="utf-8") for path in GUIDES)
    named = re.findall(rf"`((?:{modules})\.\w+)`", guides)
    # `weights.gated` and `engine.gemm_plugin` are keys of a profile
    keys = {key for key, _ in keys_of(EngineProfile)} | {f"engine.{flag}" for flag in TRTLLM_BUILD}
    assert set(named) - keys == stages


# -- clip-search


def test_documents_of_the_page_are_valid() -> None:
    (lines,) = blocks("json")
    ((first, second),) = batches(lines)
    assert first["image"] and "image" not in second


def test_client_on_the_page_uses_the_served_tensors() -> None:
    profile = load_profile("clip-search")
    assert isinstance(profile, PlanProfile)
    served = profile.model_files("/weights")["clip_search/config.pbtxt"]
    inputs, outputs = (re.findall(r'name: "(\w+)"', part) for part in served.split("output [")[:2])
    digests, client = blocks("python")
    (assignment,) = ast.parse(digests).body
    assert isinstance(assignment, ast.Assign)
    assert set(ast.literal_eval(assignment.value)) == {profile.image.base, profile.documents.image}

    asked: list[tuple[str, dict[str, list[int]]]] = []

    class Answer:
        def as_numpy(self, name: str) -> list[list[Any]]:
            assert name in outputs
            return [[b'{"id": "blue-circle"}' if name == "document" else 0.5]]

    class Client:
        def infer(self, model: str, given: list[Any]) -> Answer:
            asked.append((model, {tensor.name(): tensor.shape() for tensor in given}))
            return Answer()

    page = types.ModuleType("page")
    exec(compile(client, str(DOCUMENTS), "exec"), page.__dict__)
    assert page.search(Client(), text="a blue circle", image=b"PNG") == ({"id": "blue-circle"}, 0.5)
    assert page.search(Client(), text="a blue circle") == ({"id": "blue-circle"}, 0.5)
    both = {"text": [1, 1], "image": [1, 1]}
    assert asked == [("clip_search", both), ("clip_search", {"text": [1, 1]})]
    assert set(both) <= set(inputs)
    (request,) = re.findall(r"-d '(\{\"inputs\".*\})'", PAGE)
    assert {tensor["name"] for tensor in json.loads(request)["inputs"]} <= set(inputs)


def test_page_names_only_existing_clip_models() -> None:
    names = {path.split("/")[0] for path in filled("clip_search", _values())}
    assert {name for name in re.findall(r"`(clip_[a-z]+)`", PAGE)} <= names


def _values() -> dict[str, Any]:
    text = (PROJECT / "files" / "model_repository" / "clip_search").rglob("*.pbtxt")
    return {name: 1 for path in text for name in re.findall(r"\$\{(\w+)\}", path.read_text("utf-8"))}


# -- the pages themselves


def test_profiles_of_the_page_are_toml() -> None:
    assert all(tomllib.loads(block) for block in blocks("toml"))
