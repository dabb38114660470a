import re
from itertools import pairwise

import pytest

from operations.plan.catalog.support_matrix import (
    FAMILIES,
    PLAIN_RELEASES,
    RELEASES,
    check_tensorrt_llm,
    converter_candidates,
    quantizer_candidates,
    stack_release,
    template_root,
    version_tuple,
)
from operations.plan.errors import PlanError


@pytest.mark.parametrize("name", RELEASES)
def test_every_row_is_well_formed(name: str) -> None:
    row = stack_release(name, "image.release")
    assert re.fullmatch(r"2\d\.(0[1-9]|1[0-2])", row.release)
    assert re.fullmatch(r"2\.\d+\.\d+", row.triton)
    assert len(row.version) >= 3
    assert row.python in ("3.10", "3.12")
    assert re.fullmatch(r"\d{3}\.\d{2,3}\.\d{2}", row.driver)
    assert row.image == f"nvidia/tritonserver:{name}-trtllm-python-py3"
    # a tag is of the very version the image holds, or of the release its post-release is made of
    assert row.backend_tag is None or version_tuple(row.backend_tag) == row.version[:3]


@pytest.mark.parametrize("name", PLAIN_RELEASES)
def test_plain_releases_are_only_for_kind_plan(name: str) -> None:
    row = stack_release(name, "image.release")
    assert name not in RELEASES and name > max(RELEASES)
    assert row.image == f"nvidia/tritonserver:{name}-py3"
    check_tensorrt_llm(row, "plan")
    for kind in ("engine", "llmapi"):
        with pytest.raises(PlanError) as refused:
            check_tensorrt_llm(row, kind)
        assert str(refused.value) == (
            f"image.release: found {name}, of which no image with TensorRT-LLM is known, expected a release with "
            f"TensorRT-LLM for a profile of kind {kind}; the newest with one is 26.07; {name} is for kind plan"
        )


def test_plain_releases_list_only_known_versions() -> None:
    rows = {name: (row.triton, row.tensorrt, row.cuda, row.driver) for name, row in PLAIN_RELEASES.items()}
    assert rows == {
        "26.08": ("2.72.0", "11.2.1", "13.4.1", "615.61"),
        "26.09": ("2.73.0", "", "13.4.1", "615.61"),
        "26.10": ("", "", "13.4.3", ""),
    }


def test_versions_never_decrease_between_releases() -> None:
    rows = [RELEASES[name] for name in sorted(RELEASES)]
    assert list(RELEASES) == sorted(RELEASES)
    for older, newer in pairwise(rows):
        assert older.version <= newer.version
        assert version_tuple(older.triton) < version_tuple(newer.triton)
        assert version_tuple(older.cuda) <= version_tuple(newer.cuda)


@pytest.mark.parametrize(
    ("name", "expected"), [("24.9", "did you mean 24.09?"), ("26.9", "known: 24.04"), ("x", "known: 24.04")]
)
def test_an_unknown_release_is_refused_with_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(PlanError) as caught:
        stack_release(name, "image.release")
    assert str(caught.value).startswith(f"image.release: found {name}")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.17.0.post1", (0, 17, 0)),
        ("v0.9.0", (0, 9, 0)),
        ("1.0.3.2510", (1, 0, 3, 2510)),
        ("1.2.0rc1", (1, 2)),
        ("", ()),
    ],
)
def test_version_tuple(text: str, numbers: tuple[int, ...]) -> None:
    assert version_tuple(text) == numbers


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("version", [(0, 9, 0), (0, 17, 0), (0, 19, 0), (1, 0, 0)])
def test_converters_are_searched_in_old_and_new_places(family: str, version: tuple[int, ...]) -> None:
    found = converter_candidates(family, version)
    assert len(set(found)) == len(found)
    assert all(path.startswith("/") and path.endswith("/convert_checkpoint.py") for path in found)
    assert any("/models/core/" in path for path in found)
    assert any("/models/core/" not in path for path in found)


@pytest.mark.parametrize(
    ("version", "first"), [((0, 17, 0), "/app/examples/"), ((0, 19, 0), "/app/tensorrt_llm/examples/")]
)
def test_most_likely_path_comes_first(version: tuple[int, ...], first: str) -> None:
    assert quantizer_candidates(version)[0] == f"{first}quantization/quantize.py"
    assert converter_candidates("llama", version)[0].startswith(first)


@pytest.mark.parametrize(
    ("version", "root"),
    [
        ((0, 9, 0), "all_models/inflight_batcher_llm"),
        ((0, 19, 0), "all_models/inflight_batcher_llm"),
        ((0, 20, 0), "tensorrt_llm/triton_backend/all_models/inflight_batcher_llm"),
        ((1, 0, 0), "tensorrt_llm/triton_backend/all_models/inflight_batcher_llm"),
    ],
)
def test_templates_moved_into_the_submodule_at_0_20(version: tuple[int, ...], root: str) -> None:
    assert template_root(version, "inflight_batcher_llm") == root
