"""Which versions belong together: one row per NGC image `tritonserver:YY.MM-trtllm-python-py3`, and per plain one after them.

Source of the versions, unless a row says otherwise: the "Triton TRT-LLM container" table of
https://github.com/triton-inference-server/server/blob/main/docs/introduction/compatibility.md (as of 2026-08-19);
Triton's own version from build.py at the tag v2.NN.0 of the same repository. Release notes and READMEs of these
projects name other images for the same TensorRT-LLM version and are not used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from operations.plan.catalog.sources import DOCKERFILE, DOCKERFILES, Dockerfile
from operations.plan.errors import PlanError, suggestion


@dataclass(frozen=True)
class StackRelease:
    """One row: what an image YY.MM contains and what fits it."""

    release: str  # YY.MM
    triton: str
    tensorrt_llm: str  # empty: a plain image, without it
    tensorrt: str
    cuda: str
    driver: str  # the driver of the image's CUDA, as the source names it; not called a minimum there
    python: str
    backend_tag: str | None  # tensorrtllm_backend's tag; None: there is no tag for it
    base: str = ""  # YY.MM of the Triton image that is a build's base, if it is not the release

    @property
    def image(self) -> str:
        """The image's reference without its registry."""
        return f"nvidia/tritonserver:{self.release}{'-trtllm-python' if self.tensorrt_llm else ''}-py3"

    @property
    def triton_release(self) -> str:
        """YY.MM of the Triton that serves."""
        return self.base or self.release

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
    # The table says 10.0.1.6 for 24.05; the libraries in the image are 9.3.0, according to its maintainers:
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

# From here on NVIDIA's plain Triton image has TensorRT 11
_TENSORRT_11 = "26.08"


def plain_tensorrt(release: str) -> int:
    """The major version of TensorRT in NVIDIA's plain Triton image of a release YY.MM."""
    return 11 if release >= _TENSORRT_11 else 10


# Plain images, `YY.MM-py3`, of months whose image with TensorRT-LLM is not known: for profiles of kind plan, which need only
# TensorRT. Empty: not known; Python and backend tag are not stated for any. CUDA and driver of 26.08: the "vLLM" table of the
# same page; TensorRT of 26.08, Triton and driver of 26.09, CUDA of 26.09 and 26.10: release notes,
# https://docs.nvidia.com/deeplearning/triton-inference-server/release-notes/rel-26-10.html and its siblings.
_PLAIN_ROWS = (
    # release, triton, no tensorrt-llm, tensorrt, cuda, driver, python, backend tag
    ("26.08", "2.72.0", "", "11.2.1", "13.4.1", "615.61", "", None),
    ("26.09", "2.73.0", "", "", "13.4.1", "615.61", "", None),
    ("26.10", "", "", "", "13.4.3", "", "", None),
)

PLAIN_RELEASES = {row[0]: StackRelease(*row) for row in _PLAIN_ROWS}
# Triton by the YY.MM of its image: a base image may be older than the oldest row, or newer than the newest one, because
# plain images continue without TensorRT-LLM. Empty: not known.
TRITON = {
    **{"24.02": "2.43.0", "24.03": "2.44.0"},
    **{name: row.triton for name, row in (RELEASES | PLAIN_RELEASES).items()},
}


def check_tensorrt_llm(stack: StackRelease, kind: str) -> None:
    """
    Refuse a release without TensorRT-LLM for a profile that needs it.

    + kind: the profile's: engine, llmapi or plan

    Raises PlanError with the newest release that has it.
    """
    if kind != "plan" and not stack.tensorrt_llm:
        raise PlanError(
            "image.release",
            f"{stack.release}, of which no image with TensorRT-LLM is known",
            f"a release with TensorRT-LLM for a profile of kind {kind}",
            f"the newest with one is {max(RELEASES)}; {stack.release} is for kind plan",
        )


def stack_release(name: str, key: str) -> StackRelease:
    """The row of one YY.MM release, or PlanError naming `key` and the nearest known release."""
    if name in PLAIN_RELEASES:
        return PLAIN_RELEASES[name]
    try:
        return RELEASES[name]
    except KeyError:
        raise PlanError(
            key, name, "a release YY.MM of the support matrix", suggestion(name, RELEASES)
        ) from None


def dockerfile_of(row: StackRelease) -> Dockerfile:
    """The Dockerfile that a release is built with. Raises PlanError if its tag has none."""
    file = DOCKERFILES.get(row.backend_tag or "")
    if file is None:
        newest = max((r for r in RELEASES.values() if r.backend_tag in DOCKERFILES), key=lambda r: r.release)
        what = f"{row.backend_tag} has no {DOCKERFILE}" if row.backend_tag else "no tag was made for it"
        raise PlanError(
            "image.source",
            "build",
            f"pull for release {row.release}: of tensorrtllm_backend, {what}",
            f"the newest release that can be built is {newest.release} ({newest.backend_tag})",
        )
    return file


def upon(row: StackRelease, base: str) -> StackRelease:
    """
    A release with the server of another image.

    + base: name:tag of that image, whose tag begins with YY.MM

    Raises PlanError if that image's Triton is not known, because options and floors depend on it.
    """
    found = re.match(r"[^:]+:([0-9]{2}\.[0-9]{2})(?![0-9])", base)
    if found is None or found[1] not in TRITON:
        raise PlanError(
            "image.base",
            base,
            f"an image whose tag begins with a Triton release YY.MM, from {min(TRITON)} to {max(TRITON)}",
            "give an image of your own such a tag, as 24.07-py3-own",
        )
    if found[1] == row.release:
        return row
    return replace(row, triton=TRITON[found[1]], base=found[1])


def built(row: StackRelease, base: str | None) -> StackRelease:
    """
    What a build of a release contains: the TensorRT-LLM of the tag's tree, and the Triton of its base.

    + base: the profile's own; None takes the Dockerfile's

    Raises PlanError if it cannot be built.
    """
    file = dockerfile_of(row)
    # Two releases may share a tree, one of them with a later patch of TensorRT-LLM: the build has the tag's version.
    tree = replace(row, tensorrt_llm=str(row.backend_tag).removeprefix("v"))
    return upon(tree, base or file.base)


def example_roots(version: tuple[int, ...]) -> tuple[str, ...]:
    """
    Directories of the serving image that may have TensorRT-LLM's example scripts, the likeliest first.

    Their place changed more than once (READMEs of tensorrtllm_backend v0.9.0 to v1.0.0 and its Dockerfile on main), and no
    image was inspected, so a script is searched for in all of them.
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


def converter_folder(family: str) -> str:
    """The folder of the family's convert_checkpoint.py: one script converts several families."""
    return _CONVERTER_FOLDERS[family][0]


def converter_candidates(family: str, version: tuple[int, ...]) -> tuple[str, ...]:
    """Paths in the image where the family's convert_checkpoint.py may be."""
    return _candidates([f"{folder}/convert_checkpoint.py" for folder in _CONVERTER_FOLDERS[family]], version)


def quantizer_candidates(version: tuple[int, ...]) -> tuple[str, ...]:
    """Paths in the image where quantize.py may be; its folder never moved up to 1.2."""
    return _candidates(["quantization/quantize.py"], version)


def _candidates(scripts: list[str], version: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{root}/{script}" for script in scripts for root in example_roots(version))


# From this version on the NGC image itself contains templates and examples: READMEs of tensorrtllm_backend v0.17.0
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
