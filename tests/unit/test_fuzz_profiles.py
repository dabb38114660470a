"""Whatever stands in a profile, it is planned or refused in one line, soon: never a traceback, never a hang."""

from __future__ import annotations

import copy
import datetime
import json
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from operations.plan.catalog.known_values import CHECKPOINT, ENGINE, LLM, PARAMETERS
from operations.plan.catalog.sources import DOCKERFILES
from operations.plan.catalog.support_matrix import RELEASES
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.planning import plan_release
from operations.plan.profile import profiles
from operations.plan.profile.profiles import load_profile
from tests.unit.builders import DATA, DIGEST, gpu, settings

TEXTS = {path.stem: path.read_text("utf-8") for path in sorted(profiles.MODELS_DIRECTORY.glob("*.toml"))}
TABLES = {name: tomllib.loads(text) for name, text in TEXTS.items()}


def everything_known() -> Settings:
    """Settings with every digest and commit a profile may ask for, so that a plan gets as far as it can."""
    tags = [f"{release}-{kind}py3" for release in RELEASES for kind in ("", "trtllm-python-")]
    digests = {
        **{f"nvidia/tritonserver:{tag}": DIGEST for tag in tags},
        **{image: DIGEST for file in DOCKERFILES.values() for image in (file.base, file.pytorch)},
        "pgvector/pgvector:0.8.6-pg16": DIGEST,
    }
    commits = {release.backend_tag: "a" * 40 for release in RELEASES.values() if release.backend_tag}
    return settings(image_digests=digests, backend_commits=commits)


SETTINGS = everything_known()


@pytest.fixture(scope="module")
def models() -> Iterator[Path]:
    """An own directory of profiles, for all examples: a fixture of one test is one for all its examples anyway."""
    before = profiles.MODELS_DIRECTORY
    with tempfile.TemporaryDirectory() as directory:
        profiles.MODELS_DIRECTORY = Path(directory)
        yield profiles.MODELS_DIRECTORY
    profiles.MODELS_DIRECTORY = before


def examples(number: int) -> hypothesis_settings:
    return hypothesis_settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def plan(overrides: Mapping[str, Any] | None = None, gpus: int = 1) -> bool:
    """Whether odd.toml is planned, and not refused."""
    started = time.process_time()
    try:
        loaded = load_profile("odd", overrides)
        memory = {"name": "NVIDIA H200", "compute_capability": "8.9", "memory_total_mib": 143771}
        release = plan_release(SETTINGS, [gpu(index, **memory) for index in range(gpus)], "9", loaded)
        json.dumps(release.document())
        assert release.id and release.files and [step.artifact.body() for step in release.steps]
        planned = True
    except PlanError as error:
        assert str(error).isprintable() and 10 < len(str(error)) <= 4000
        planned = False
    assert time.process_time() - started < 2
    return planned


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def lines(tables: Mapping[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in tables.items())


NAMES = sorted(
    {
        *[
            "kind",
            "weights",
            "image",
            "release",
            "source",
            "base",
            "checkpoint",
            "engine",
            "repository",
            "models",
        ],
        *["parameters", "model_parameters", "server", "arguments", "environment", "golden", "prompt", "llm"],
        *[
            "quantization",
            "format",
            "flags",
            "dtype",
            "family",
            "tensor_parallel",
            "architecture",
            "encoders",
        ],
        *[
            "kv_cache_config",
            "load_models",
            "include",
            "hardware",
            "PATH",
            "NCCL_DEBUG",
            "",
            "a.b",
            "__class__",
        ],
        *ENGINE,
        *CHECKPOINT,
        *PARAMETERS,
        *LLM,
    }
)
SCALARS = st.one_of(
    st.sampled_from(
        [
            *[0, -1, 1, 2, 3, 8, 64, 65, 2**31, 2**63 - 1, 10**18, True, False, 0.5, 1.5, -0.0, 1e300],
            *[float("nan"), float("inf"), datetime.date(2024, 10, 1), datetime.time(7, 32)],
            *[
                "",
                " ",
                "auto",
                "float16",
                "fp8",
                "enable",
                "engine",
                "llmapi",
                "plan",
                "24.04",
                "24.09",
                "25.01",
            ],
            *[
                "26.07",
                "pull",
                "build",
                "llama",
                "mixtral",
                "gpt",
                "int4_awq",
                "nvfp4",
                "inflight_batching",
                "8",
            ],
            *[
                "../../etc/passwd",
                "-x",
                "${engine_dir}",
                'x" }',
                "a\nb",
                "\x00",
                "\x7f",
                "\u202e",
                "\U0001f600",
            ],
            *["hf_CANARYcanary0123456789", "https://u:p@h/x", "x" * 5000, "--log-verbose=1", "c" * 40, "$id"],
        ]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=3),
    ),
    max_leaves=6,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a profile."""
    found = [path] if path else []
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            found += places(item, (*path, key))
    return found


PLACES = {name: places(tables) for name, tables in TABLES.items()}


def like(value: object) -> st.SearchStrategy[Any]:
    """A value of the same type: it gets further into a plan than one of any type."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.sampled_from([1, 2, 4, 8, 32, 128, 512, 1024, 2048, 4096, 9000, value * 2, value - 1])
    if isinstance(value, float):
        return st.floats(0.01, 1)
    if isinstance(value, str):
        words = ["auto", "float16", "bfloat16", "24.08", "24.12", "25.06", "25.09", "26.07", "pull", "build"]
        return st.sampled_from(
            [*words, "int8_wo", "gpt", "llama", "inflight_batching", "V1", "ensemble", f"{value}x"]
        )
    return VALUES


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """An available profile with one or two of its values removed or replaced, or with one or two more."""
    name = draw(st.sampled_from(sorted(TABLES)))
    tables = copy.deepcopy(TABLES[name])
    for path in draw(st.lists(st.sampled_from(PLACES[name]), min_size=1, max_size=2)):
        table: Any = tables
        try:
            for key in path[:-1]:
                table = table[key]
            table[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # gone with an earlier change
        match draw(st.sampled_from(["remove", "replace", "similar", "similar", "add"])):
            case "remove":
                del table[path[-1]]
            case "add" if isinstance(table, dict):
                table[draw(st.sampled_from(NAMES))] = draw(VALUES)
            case "similar":
                table[path[-1]] = draw(like(table[path[-1]]))
            case _:
                table[path[-1]] = draw(VALUES)
    return tables


@examples(250)
@given(tables=mutated(), gpus=st.sampled_from([1, 8]))
@pytest.mark.slow
def test_a_changed_profile(models: Path, tables: dict[str, Any], gpus: int) -> None:
    # a key or a text that TOML has no escape for makes the file none: refused too
    (models / "odd.toml").write_text(lines(tables), encoding="utf-8", errors="surrogatepass")
    plan(gpus=gpus)


@pytest.mark.slow
@examples(150)
@given(overrides=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), VALUES, max_size=3))
def test_a_profile_with_odd_overrides(models: Path, overrides: dict[str, Any]) -> None:
    (models / "odd.toml").write_text(TEXTS["smollm2-135m"], encoding="utf-8")
    plan(overrides)


LINES = [line for text in TEXTS.values() for line in text.splitlines() if line and not line.startswith("#")]
TOML_WORDS = [
    *"[]{}=.,\"'#\\\n",
    "[[",
    "]]",
    '"""',
    "'''",
    "\r\n",
    "1e5",
    "0x",
    "nan",
    "a.b",
    "\u00e9",
    "\\u0000",
]


@pytest.mark.slow
@examples(150)
@given(
    text=st.lists(
        st.one_of(st.sampled_from(LINES), st.sampled_from(TOML_WORDS), st.text(max_size=5)), max_size=12
    )
)
def test_lines_and_words_of_toml(models: Path, text: list[str]) -> None:
    content = "\n".join(text).encode("utf-8", errors="surrogatepass")
    (models / "odd.toml").write_bytes(content)
    plan()


@pytest.mark.slow
@examples(150)
@given(
    name=st.sampled_from(sorted(TEXTS)),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    put=st.binary(max_size=6),
)
def test_a_damaged_file(models: Path, name: str, cut: tuple[float, float], put: bytes) -> None:
    content = TEXTS[name].encode()
    first, last = sorted(int(part * len(content)) for part in cut)
    # a few bytes replaced, or all that follows cut off
    (models / "odd.toml").write_bytes(
        content[:first] + put + (content[first + len(put) :] if last % 2 else b"")
    )
    plan()


@pytest.mark.slow
@examples(60)
@given(content=st.binary(max_size=200))
def test_any_bytes(models: Path, content: bytes) -> None:
    (models / "odd.toml").write_bytes(content)
    assert not plan()


@pytest.mark.slow
@examples(150)
@given(key=st.sampled_from(sorted(Settings.model_fields)), value=VALUES)
def test_odd_settings(key: str, value: Any) -> None:
    try:
        from_host_data({**DATA, key: value}, "gpu-1")
    except PlanError as error:
        assert str(error).isprintable() and str(error).startswith("gpu-1: ") and "CANARY" not in str(error)


@pytest.mark.parametrize("name", TEXTS)
def test_an_unchanged_profile_is_planned(models: Path, name: str) -> None:
    """So that the examples begin with what works."""
    (models / "odd.toml").write_text(lines(TABLES[name]), encoding="utf-8")
    assert plan(gpus=8)
