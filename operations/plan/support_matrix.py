"""Which versions belong together: one row per NGC `tritonserver:YY.MM-trtllm-python-py3` image, as data.

Source of the versions, unless a row says otherwise: the "Triton TRT-LLM container" table of
https://github.com/triton-inference-server/server/blob/main/docs/introduction/compatibility.md (as of 2026-08-19);
Triton's own version from build.py at the tag v2.NN.0 of the same repository. Release notes and READMEs of these
projects name other images for the same TensorRT-LLM version and are not used.
"""

from __future__ import annotations

from dataclasses import dataclass

from operations.plan.errors import PlanError, suggestion


@dataclass(frozen=True)
class StackRelease:
    """One row: what an image YY.MM holds and what fits it."""

    release: str  # YY.MM
    triton: str
    tensorrt_llm: str
    tensorrt: str
    cuda: str
    driver: str  # the driver of the image's CUDA, as the source names it; not called a minimum there
    python: str
    backend_tag: str | None  # tensorrtllm_backend's tag; None: no tag was made for it

    @property
    def image(self) -> str:
        """The image's reference without its registry."""
        return f"nvidia/tritonserver:{self.release}-trtllm-python-py3"

    @property
    def version(self) -> tuple[int, ...]:
        """TensorRT-LLM's version as numbers, to compare."""
        return version_tuple(self.tensorrt_llm)


def version_tuple(text: str) -> tuple[int, ...]:
    """`0.17.0.post1` -> (0, 17, 0): the numbers up to the first part that is not one."""
    numbers = []
    for part in text.removeprefix("v").split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


_ROWS = (
    # release, triton, tensorrt-llm, tensorrt, cuda, driver, python, backend tag
    ("24.04", "2.45.0", "0.9.0", "9.3.0.post12.dev1", "12.3.2", "545.23.08", "3.10", "v0.9.0"),
    # The table gives 10.0.1.6 for 24.05; the libraries in the image are 9.3.0, say its makers:
    # https://github.com/triton-inference-server/server/issues/7374
    ("24.05", "2.46.0", "0.9.0", "9.3.0.post12.dev1", "12.3.2", "545.23.08", "3.10", "v0.9.0"),
    ("24.06", "2.47.0", "0.10.0", "10.0.1", "12.4.0", "550.54.14", "3.10", "v0.10.0"),
    ("24.07", "2.48.0", "0.11.0", "10.1.0", "12.4.1", "550.54.15", "3.10", "v0.11.0"),
    ("24.08", "2.49.0", "0.12.0", "10.3.0", "12.5.1", "555.42.06", "3.10", "v0.12.0"),
    ("24.09", "2.50.0", "0.13.0", "10.4.0", "12.5.1", "555.42.06", "3.10", "v0.13.0"),
    ("24.10", "2.51.0", "0.14.0", "10.4.0", "12.5.1", "555.42.06", "3.10", "v0.14.0"),
    ("24.11", "2.52.0", "0.15.0", "10.6.0", "12.6.3", "555.42.06", "3.10", "v0.15.0"),
    ("24.12", "2.53.0", "0.16.0", "10.7.0", "12.6.3", "560.35.05", "3.12", "v0.16.0"),
    ("25.01", "2.54.0", "0.17.0", "10.8.0.43", "12.8.0", "570.86.10", "3.12", "v0.17.0"),
    ("25.02", "2.55.0", "0.17.0.post1", "10.8.0.43", "12.8.0", "570.86.10", "3.12", "v0.17.0"),
    ("25.03", "2.56.0", "0.18.0", "10.9.0.34", "12.8.1", "570.124.06", "3.12", "v0.18.0"),
    ("25.04", "2.57.0", "0.18.2", "10.9.0.34", "12.8.1", "570.124.06", "3.12", "v0.18.2"),
    ("25.05", "2.58.0", "0.19.0", "10.9.0.34", "12.8.1", "570.124.06", "3.12", "v0.19.0"),
    ("25.06", "2.59.0", "0.20.0", "10.10.0.31", "12.9.0", "575.51.03", "3.12", "v0.20.0"),
    ("25.07", "2.59.1", "0.20.0", "10.10.0.31", "12.9.0", "575.51.03", "3.12", "v0.20.0"),
    ("25.08", "2.60.0", "0.21.0", "10.11.0.33", "12.9.0", "575.51.03", "3.12", "v0.21.0"),
    ("25.09", "2.61.0", "1.0.0", "10.11.0.33", "12.9.1", "575.57.08", "3.12", "v1.0.0"),
    ("25.10", "2.62.0", "1.0.0", "10.11.0.33", "12.9.1", "575.57.08", "3.12", "v1.0.0"),
    ("25.11", "2.63.0", "1.0.3.2510", "10.13.3.9", "13.0.2", "580.95.05", "3.12", None),
    ("25.12", "2.64.0", "1.1.0", "10.13.3.9", "13.0.2", "580.95.05", "3.12", None),
    ("26.01", "2.65.0", "1.1.0", "10.13.3.9", "13.0.2", "580.95.05", "3.12", None),
    ("26.02", "2.66.0", "1.1.0", "10.13.3.9", "13.0.2", "580.95.05", "3.12", None),
    ("26.03", "2.67.0", "1.2.0", "10.14.1.48", "13.1.0", "590.44.01", "3.12", None),
    ("26.04", "2.68.0", "1.2.1", "10.14.1.48", "13.1.0", "590.44.01", "3.12", None),
    ("26.05", "2.69.0", "1.2.1", "10.14.1.48", "13.1.0", "590.44.01", "3.12", None),
    ("26.06", "2.70.0", "1.2.1", "10.14.1.48", "13.1.0", "590.44.01", "3.12", None),
    ("26.07", "2.71.0", "1.2.1", "10.14.1.48", "13.1.0", "590.44.01", "3.12", None),
)

RELEASES = {row[0]: StackRelease(*row) for row in _ROWS}


def stack_release(name: str, key: str) -> StackRelease:
    """The row of one YY.MM release, or PlanError naming `key` and the nearest known release."""
    try:
        return RELEASES[name]
    except KeyError:
        raise PlanError(
            key, name, "a release YY.MM of the support matrix", suggestion(name, RELEASES)
        ) from None


def example_roots(version: tuple[int, ...]) -> tuple[str, ...]:
    """
    Directories of the serving image that may hold TensorRT-LLM's example scripts, the likeliest first.

    Where they lie changed more than once (READMEs of tensorrtllm_backend v0.9.0 to v1.0.0 and its Dockerfile on
    main), and no image was opened to see, so a script is looked for in all of them.
    """
    clone = "/tensorrtllm_backend/tensorrt_llm/examples"
    if version >= (0, 19):
        return ("/app/tensorrt_llm/examples", "/app/examples", clone)
    return ("/app/examples", "/app/tensorrt_llm/examples", clone)


# Converter of a model family, relative to the examples' root. The folders moved at 0.20 according to the release
# notes of TensorRT-LLM; the exact tree of 0.19 was not read, so both places are tried for every version.
_CONVERTER_FOLDERS = {
    "llama": ("llama", "models/core/llama"),
    # Mixtral and Mistral are converted by llama's script (examples/mixtral/README.md at v0.9.0).
    "mixtral": ("llama", "models/core/llama"),
    "mistral": ("llama", "models/core/llama"),
    "gpt": ("gpt", "models/core/gpt"),
}

FAMILIES = frozenset(_CONVERTER_FOLDERS)


def converter_candidates(family: str, version: tuple[int, ...]) -> tuple[str, ...]:
    """Paths in the image where the family's convert_checkpoint.py may be."""
    return _candidates([f"{folder}/convert_checkpoint.py" for folder in _CONVERTER_FOLDERS[family]], version)


def quantizer_candidates(version: tuple[int, ...]) -> tuple[str, ...]:
    """Paths in the image where quantize.py may be; its folder never moved up to 1.2."""
    return _candidates(["quantization/quantize.py"], version)


def _candidates(scripts: list[str], version: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{root}/{script}" for script in scripts for root in example_roots(version))


# From this version on the NGC image carries templates and examples itself: READMEs of tensorrtllm_backend v0.17.0
# and later use /app/all_models, the earlier ones mount a clone.
TEMPLATES_IN_IMAGE = (0, 17)
IMAGE_TEMPLATE_ROOTS = (
    "/app/all_models",
    "/app/triton_backend/all_models",
    "/app/tensorrt_llm/triton_backend/all_models",
)


def template_root(version: tuple[int, ...], family: str) -> str:
    """Where the checkout of tensorrtllm_backend keeps a family of templates: inflight_batcher_llm or llmapi.

    From v0.20.0 on they are in the submodule TensorRT-LLM (git ls-tree of each tag).
    """
    if version >= (0, 20):
        return f"tensorrt_llm/triton_backend/all_models/{family}"
    return f"all_models/{family}"
