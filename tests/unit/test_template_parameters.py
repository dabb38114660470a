import pytest

from operations.plan.commands import ENGINE, WEIGHTS
from operations.plan.model_repository import DEFAULTS, REQUIRED_QUOTED
from operations.plan.support_matrix import RELEASES
from operations.plan.template_parameters import PARAMETERS, parameters_of

TAGGED = [release for release in RELEASES.values() if release.backend_tag]


@pytest.mark.parametrize(
    ("model", "name", "version", "there"),
    [
        ("tensorrt_llm", "triton_backend", (0, 9, 0), False),
        ("tensorrt_llm", "triton_backend", (0, 10, 0), True),
        ("tensorrt_llm", "enable_trt_overlap", (0, 9, 0), True),
        ("tensorrt_llm", "enable_trt_overlap", (0, 10, 0), False),
        ("preprocessing", "visual_model_path", (0, 18, 2), True),
        ("preprocessing", "visual_model_path", (0, 19, 0), False),
        ("postprocessing", "skip_special_tokens", (0, 10, 0), False),
        ("postprocessing", "skip_special_tokens", (0, 11, 0), True),
        ("ensemble", "logits_datatype", (0, 16, 0), False),
        ("ensemble", "logits_datatype", (0, 17, 0), True),
    ],
)
def test_a_parameter_is_there_from_its_first_version_to_its_last(
    model: str, name: str, version: tuple[int, ...], there: bool
) -> None:
    assert (name in parameters_of(model, version)) is there


def test_an_unknown_model_has_none() -> None:
    assert parameters_of("nothing", (0, 17, 0)) == {}


@pytest.mark.parametrize("model", PARAMETERS)
def test_a_name_stands_once_in_a_model_s_table(model: str) -> None:
    names = [parameter.name for parameter in PARAMETERS[model]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("release", TAGGED, ids=lambda release: release.release)
def test_all_that_must_be_filled_has_a_value_without_a_word_in_the_profile(release: object) -> None:
    version = RELEASES[release.release].version  # type: ignore[attr-defined]
    given = {**DEFAULTS, "engine_dir": ENGINE, "tokenizer_dir": WEIGHTS}
    for model in PARAMETERS:
        for parameter in parameters_of(model, version).values():
            if parameter.bare or parameter.name in REQUIRED_QUOTED:
                assert parameter.name in given, f"{model} {parameter.name}"
