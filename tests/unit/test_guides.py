"""README.md, docs/start.md and docs/how-to: their commands exist, those of a plan run, and what is supported is the code's."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

from operations import new_profile
from operations.plan.__main__ import main
from operations.plan.catalog.shapes import SHAPES
from operations.plan.catalog.support_matrix import PLAIN_RELEASES, RELEASES
from operations.plan.catalog.version_floors import FLOORS
from operations.plan.inventory.settings import Settings
from operations.plan.machine.packages import SUPPORTED_OS_MAJORS
from operations.plan.planning import FIRST_LLMAPI_VERSION, LAST_ENGINE_VERSION
from operations.plan.profile import profiles
from tests.unit.hub_models import BY_NAME

PROJECT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "docs/start.md",
    *(f"docs/how-to/{p.name}" for p in (PROJECT / "docs/how-to").glob("*.md")),
]
# what stands for something that the reader knows
PLACEHOLDERS = ("NAME", "FILE", "…")


@cache
def text_of(page: str) -> str:
    return (PROJECT / page).read_text(encoding="utf-8")


def code(page: str) -> list[str]:
    """Each line of a page's indented and fenced blocks without its comment, and each code span."""
    lines = [
        line.strip().partition("  #")[0].partition(" > ")[0].strip() for line in text_of(page).splitlines()
    ]
    return [*lines, *re.findall(r"`([^`\n]+)`", text_of(page))]


def commands(page: str, program: str) -> list[str]:
    """What follows a program in the page's commands."""
    found = [re.match(rf"(?:[A-Z_]+=\S+ )?(?:\.venv/bin/)?{program} (.*)", line) for line in code(page)]
    return [match[1] for match in found if match]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_guides_name_what_exists(page: str) -> None:
    makefile = text_of("Makefile")
    for target in commands(page, "make"):
        for word in target.split(","):
            name = word.removeprefix(" make ").split()[0]
            assert re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE), target
    for module in commands(page, "python -m"):
        assert importlib.util.find_spec(module.split()[0]), module
    for arguments in commands(page, "pyinfra"):
        for word in shlex.split(arguments):
            if word.startswith("operations."):
                name, _, function = word.rpartition(".")
                assert f"\ndef {function}(" in (PROJECT / f"{name.replace('.', '/')}.py").read_text(), word
            if word.endswith(".py"):
                assert (PROJECT / word).is_file(), word


def test_guides_have_commands_at_all() -> None:
    assert {"demo", "venv"} <= {target.split()[0] for target in commands("README.md", "make")}
    assert commands("docs/how-to/roll-back.md", "pyinfra")[1].endswith(
        "operations.release.rollback --limit gpu-1"
    )
    assert "operations.plan explain gpt2-medium" in commands("README.md", "python -m")


# the lab serves it under a name of its own
SMOLLM2 = BY_NAME["HuggingFaceTB/SmolLM2-135M-Instruct"]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_guides_commands_of_a_plan_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "inventories" / "models"
    shutil.copytree(profiles.MODELS_DIRECTORY, models)
    monkeypatch.setattr(profiles, "MODELS_DIRECTORY", models)
    monkeypatch.setattr(new_profile, "MODELS_DIRECTORY", models)
    monkeypatch.setattr(new_profile, "read_hub", lambda name, *_: BY_NAME.get(name, SMOLLM2).repository)
    for line in code(page):
        # the tutorial's own model is made as it says
        if re.match(r"(cp|sed) .* inventories/models/my-model\.toml$", line):
            before = (models / "my-model.toml").read_text() if line.startswith("sed") else ""
            subprocess.run(shlex.split(line), cwd=tmp_path, check=True)
            assert (models / "my-model.toml").read_text() != before, line
    for command in commands(page, "python -m"):
        module, *arguments = shlex.split(command)
        if module != "operations.plan" or set(arguments) & set(PLACEHOLDERS):
            continue
        # the page shows this profile, and the reader writes it
        own = re.search(r"my-\w+", command)
        if own and not (models / f"{own[0]}.toml").exists():
            continue
        assert main(arguments) == 0, command
        assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("read the logs", "logs"),
        ("roll back", "roll-back"),
        ("change a key", "gateway"),
        ("add a host", "hosts"),
        ("remove a host", "hosts"),
        ("use mirrors", "mirrors"),
        ("open the ports", "network"),
        ("after a reboot", "run"),
        ("upgrade docker", "packages"),
        ("`nvidia-smi` fails", "driver"),
        ("free disk", "free-disk"),
        ("docker system prune", "free-disk"),
        ("openai", "openai"),
        ("monitor", "monitoring"),
    ],
)
def test_guides_answer_the_first_questions(words: str, page: str) -> None:
    assert words in text_of(f"docs/how-to/{page}.md").lower()
    assert f"(docs/how-to/{page}.md)" in text_of("README.md")


def test_readme_says_what_is_supported() -> None:
    rows = dict(re.findall(r"^\| ([a-z`A-Z ]+?) \| (.*) \|$", text_of("README.md"), re.MULTILINE))
    assert f"Oracle Linux {' or '.join(SUPPORTED_OS_MAJORS)}, x86_64" in rows["host"]
    listed = re.search(r"shapes: ([^;]+);", rows["GPUs"])
    assert listed
    assert set(listed[1].split(", ")) == {shape.gpu for shape in SHAPES.values()}
    engine = [row for row in RELEASES.values() if row.version[:2] <= LAST_ENGINE_VERSION]
    first, last = min(engine, key=lambda row: row.release), max(engine, key=lambda row: row.release)
    assert (
        f"Triton {first.release} to {last.release}, TensorRT-LLM {first.tensorrt_llm} to {last.tensorrt_llm}"
        in rows["kind `engine`"]
    )
    llmapi = [name for name, row in RELEASES.items() if row.version >= FIRST_LLMAPI_VERSION]
    assert f"Triton {min(llmapi)} to {max(llmapi)}" in rows["kind `llmapi`"]
    every = {**RELEASES, **PLAIN_RELEASES}
    assert f"Triton {min(every)} to {max(every)}" in rows["kind `plan`"]
    floor = max(floor.minimum for floor in FLOORS if floor.component == "triton")
    assert f"Triton below {floor}" in rows["security floors"]
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    least = project["requires-python"].removeprefix(">=")
    assert f"Python {least} to 3.13" in rows["your machine"]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_guides_example_hosts_are_valid(page: str) -> None:
    for block in re.findall(r"^ *```toml\n(.*?)^ *```$", text_of(page), re.MULTILINE | re.DOTALL):
        for table in tomllib.loads(block).get("hosts", {}).values():
            assert set(table) <= {"address", *Settings.model_fields}
