import pytest

from operations.plan.artifacts.commands import ENGINE, WEIGHTS
from operations.plan.catalog.support_matrix import RELEASES
from operations.plan.catalog.template_parameters import PARAMETERS, parameters_of
from operations.plan.profile.model_repository import DEFAULTS, REQUIRED_QUOTED

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
def test_parameter_exists_only_in_its_range_of_versions(
    model: str, name: str, version: tuple[int, ...], there: bool
) -> None:
    assert (name in parameters_of(model, version)) is there


def test_unknown_model_has_no_parameters() -> None:
    assert parameters_of("nothing", (0, 17, 0)) == {}


@pytest.mark.parametrize("model", PARAMETERS)
def test_parameter_names_of_a_model_are_unique(model: str) -> None:
    names = [parameter.name for parameter in PARAMETERS[model]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("release", TAGGED, ids=lambda release: release.release)
def test_required_placeholders_have_default_values(release: object) -> None:
    version = RELEASES[release.release].version  # type: ignore[attr-defined]
    given = {**DEFAULTS, "engine_dir": ENGINE, "tokenizer_dir": WEIGHTS}
    for model in PARAMETERS:
        for parameter in parameters_of(model, version).values():
            if parameter.bare or parameter.name in REQUIRED_QUOTED:
                assert parameter.name in given, f"{model} {parameter.name}"
