import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from operations.plan.errors import PlanError
from operations.plan.profile import profiles
from operations.plan.profile.profiles import load_profile, profile_names
from tests.unit.builders import PROFILE, merged, profile

NAME = "smollm2-135m"


def complaint(**tables: Any) -> str:
    """What is said about the lab's own profile with these tables over it."""
    with pytest.raises(PlanError) as caught:
        load_profile(NAME, tables)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_valid(name: str) -> None:
    file = profiles.MODELS_DIRECTORY / f"{name}.toml"
    assert load_profile(name).summary == tomllib.loads(file.read_text("utf-8"))["summary"]


@pytest.mark.parametrize("name", ["", "smollm2", "../models/smollm2-135m", "/etc/passwd"])
def test_an_unknown_model_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        PlanError, match=r"model: found .*, expected a profile in inventories/models; .*smollm2-135m"
    ):
        load_profile(name)


def test_overrides_are_merged_key_by_key() -> None:
    plain = load_profile(NAME)
    assert isinstance(plain, profiles.EngineProfile)
    changed = load_profile(NAME, {"server": {"shm_size": "4g"}, "engine": {"max_batch_size": 4}})
    assert isinstance(changed, profiles.EngineProfile)
    assert changed.server.shm_size == "4g"
    assert changed.server.http_port == plain.server.http_port
    assert changed.engine == {**plain.engine, "max_batch_size": 4}


@pytest.mark.parametrize(
    ("value", "kind"), [(True, bool), (8, int), (0.5, float), ("float16", str), ("8", str), (False, bool)]
)
def test_a_flag_s_value_keeps_its_type(value: object, kind: type) -> None:
    assert type(profile(engine={"flag": value}).engine["flag"]) is kind


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        # an unknown key, with the nearest
        ({"engin": {}}, "unknown key engin, expected a known key; did you mean engine?"),
        ({"weights": {"revison": "x"}}, "did you mean revision?"),
        ({"server": {"htp_port": 8000}}, "did you mean http_port?"),
        ({"checkpoint": {"quantization": {"format": "fp8", "formt": "fp8"}}}, "did you mean format?"),
        # the model's name and revision
        *[
            ({"weights": {"repository": bad}}, "expected owner/name")
            for bad in (
                "",
                "name",
                "../../etc/passwd",
                "/abs",
                "a//b",
                "https://hub.invalid/a/b",
                5,
                None,
                "a/b\n",
            )
        ],
        *[
            ({"weights": {"revision": bad}}, "expected a 40-hex commit")
            for bad in ("main", "v1.0", "b765c30", "b" * 41, "B" * 40, 7, "b" * 40 + "\n")
        ],
        *[
            ({"weights": {"include": [bad]}}, "no pickles")
            for bad in ("*", "*.bin", "pytorch_model.bin", "*.pt", "*.pkl")
        ],
        # the image
        ({"image": {"release": 24.1}}, "image.release: found 24.1"),
        ({"image": {"release": "24.9"}}, "did you mean 24.09?"),
        ({"image": {"release": "latest"}}, "a release YY.MM"),
        ({"image": {"source": "load"}}, 'image.source: found "load"'),
        ({"image": {"base": "nvidia/tritonserver"}}, "image.base"),
        ({"image": {"base": "http://nvcr.io/x:1"}}, "image.base"),
        # the checkpoint
        *[
            ({"checkpoint": {"tensor_parallel": bad}}, "checkpoint.tensor_parallel")
            for bad in (0, -1, 65, "8", True, 1.5)
        ],
        ({"checkpoint": {"pipeline_parallel": 0}}, "checkpoint.pipeline_parallel"),
        ({"checkpoint": {"dtype": "fp17"}}, 'checkpoint.dtype: found "fp17"'),
        ({"checkpoint": {"family": "lama"}}, "did you mean llama?"),
        ({"checkpoint": {"quantization": {"format": "fp9"}}}, 'found "fp9"'),
        ({"checkpoint": {"quantization": {"format": "fp8", "calibration_size": 0}}}, "calibration_size"),
        ({"checkpoint": {"quantization": {"format": "fp8", "kv_cache_dtype": "fp17"}}}, "kv_cache_dtype"),
        # the server
        *[({"server": {"http_port": bad}}, "server.http_port") for bad in (80, 65536, "8000", True)],
        ({"server": {"shm_size": "2 GB"}}, "server.shm_size"),
        ({"server": {"environment": {"lower": "x"}}}, "server.environment"),
        (
            {"server": {"load_models": ["ensembel"]}},
            'server.load_models.0: found "ensembel", expected one of the repository\'s models',
        ),
        # the repository and the golden requests
        (
            {"repository": {"model_parameters": {"bls": {}}}},
            'repository.model_parameters.bls: found "bls", expected one of the repository\'s models',
        ),
        ({"golden": []}, "golden"),
        ({"golden": [{"prompt": "", "max_tokens": 1, "expect": ""}]}, "golden.0.prompt"),
        ({"golden": [{"prompt": "x", "max_tokens": 0, "expect": ""}]}, "golden.0.max_tokens"),
        ({"golden": [{"prompt": "x", "max_tokens": 1}]}, "golden.0.expect"),
        (
            {"golden": [{"model": "bls", "prompt": "x", "max_tokens": 1, "expect": ""}]},
            'golden.0.model: found "bls", expected one of the repository\'s models',
        ),
        ({"kind": "engines"}, 'kind: found "engines", expected one of engine, llmapi'),
    ],
)
def test_invalid_profile_content_is_refused(tables: dict[str, Any], expected: str) -> None:
    text = complaint(**tables)
    where = f"inventories/models/{NAME}.toml: "
    assert text.startswith((where, f"profile_overrides of {where}"))
    assert expected in text


def test_a_token_in_a_url_is_not_shown() -> None:
    assert "CANARY" not in complaint(
        weights={"repository": "https://user:hf_CANARY0123456789@hub.invalid/a/b"}
    )


@pytest.mark.parametrize(
    "tables",
    [
        {"repository": {"parameters": {"kv_cache_free_gpu_mem_fraction": float("nan")}}},
        {"engine": {"ratio": float("inf")}},
    ],
)
def test_number_that_json_lacks_is_refused(tables: dict[str, Any]) -> None:
    # TOML has nan and inf; a key cannot be made of them.
    assert NAME in complaint(**tables)


@pytest.mark.parametrize("key", ["summary", "weights", "image", "checkpoint", "golden"])
def test_a_missing_table_is_named(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        profiles.EngineProfile.model_validate({k: v for k, v in PROFILE.items() if k != key})


def test_pickles_are_selected_only_with_allow_pickle() -> None:
    assert profile(weights={"include": ["*.bin"], "allow_pickle": True}).weights.include == ["*.bin"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("kind = ", "a TOML file"),
        ('kind = "a"\nkind = "b"\n', "a TOML file"),
        ("\xe9", "a TOML file in UTF-8"),
    ],
)
def test_a_profile_that_is_not_toml_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: str
) -> None:
    (tmp_path / "broken.toml").write_bytes(content.encode("latin-1"))
    monkeypatch.setattr(profiles, "MODELS_DIRECTORY", tmp_path)
    with pytest.raises(PlanError, match=rf"inventories/models/broken\.toml: .*{expected}"):
        load_profile("broken")


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        profile().weights.revision = "d" * 40  # type: ignore[misc]


def test_overrides_do_not_change_the_profile() -> None:
    before = merged(PROFILE, {})
    profile(weights={"gated": True})
    assert before == PROFILE
