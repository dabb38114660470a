"""The mirror's content: git repositories with their LFS objects, the Hub's models, the Python package index.

Every repository has our own text and code in the layout of the public one of the same name, with the same tags.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.lab import standins
from tests.lab.mirror import gitrepo, hubindex, lfs, pypi, templates
from tests.lab.mirror.gitrepo import Entry, Gitlink, Release
from tests.lab.mirror.versions import TAGS, VERSION_LINE, at_version, number

BACKEND = "triton-inference-server/tensorrtllm_backend"
TENSORRT_LLM = "NVIDIA/TensorRT-LLM"
CUTLASS = "NVIDIA/cutlass"
MODEL = "tritonhost-lab/smollm2-135m-instruct"
GATED_MODEL = "tritonhost-lab/smollm2-135m-gated"
GATED_TOKEN = "hf_lab_token_for_tests"

PROFILES = Path(__file__).resolve().parents[3] / "inventories" / "models"
_SOURCE = Path(__file__).parent / "source"
_HOST = "https://github.com/"  # clients rewrite this to the mirror with `insteadOf`
_LIBRARY_SIZE = 300_000


def versioned(path: str, tag: str) -> bytes:
    """A source file with its VERSION line set to that of `tag`."""
    text = (_SOURCE / path).read_bytes()
    if text.count(VERSION_LINE) != 1:
        raise RuntimeError(f"{path} has not exactly one line {VERSION_LINE.decode().strip()!r}; restore it")
    return at_version(text, tag)


def _submodule(path: str, repository: str) -> bytes:
    return f'[submodule "{path}"]\n\tpath = {path}\n\turl = {_HOST}{repository}.git\n'.encode()


def backend_tree(tag: str, tensorrt_llm_commit: str) -> dict[str, Entry]:
    """The tree of tensorrtllm_backend at `tag`."""
    folder = "all_models/inflight_batcher_llm"
    return {
        ".gitmodules": _submodule("tensorrt_llm", TENSORRT_LLM),
        "tensorrt_llm": Gitlink(tensorrt_llm_commit),
        "README.md": (
            f"# tensorrtllm_backend {tag}: lab stand-in\n\n"
            "Laid out like the public repository of this name at this tag; words and code are the lab's own.\n"
            "Model templates: all_models/inflight_batcher_llm. Fill them with tools/fill_template.py.\n"
        ).encode(),
        "dockerfile/Dockerfile.trt_llm_backend": standins.dockerfile(tag),
        "tools/__init__.py": b"",
        "tools/fill_template.py": (versioned("tools/fill_template.py", tag), 0o755),
        "tools/version.txt": tag.removeprefix("v").encode() + b"\n",
        "scripts/launch_triton_server.py": (versioned("scripts/launch_triton_server.py", tag), 0o755),
        **{f"{folder}/{path}": content for path, content in templates.repository(tag).items()},
    }


def tensorrt_llm_tree(tag: str, cutlass_commit: str, store: Path) -> dict[str, Entry]:
    """The tree of TensorRT-LLM at `tag`; its closed libraries go to the LFS store."""
    machine = "x86_64-linux-gnu"
    libraries = [f"cpp/tensorrt_llm/batch_manager/{machine}/libtensorrt_llm_batch_manager_static.a"]
    # Shared libraries came under LFS with v0.11.0; before it the executor was the second archive.
    patterns = ["*.a", "*.lib"]
    if number(tag) >= (0, 11, 0):
        patterns += ["*.so", "*.dll"]
        wrapper = "cpp/tensorrt_llm/kernels/decoderMaskedMultiheadAttention/decoderXQAImplJIT/nvrtcWrapper"
        libraries.append(f"{wrapper}/{machine}/libtensorrt_llm_nvrtc_wrapper.so")
    else:
        libraries.append(f"cpp/tensorrt_llm/executor/{machine}/libtensorrt_llm_executor_static.a")
    tree: dict[str, Entry] = dict(standins.tensorrt_llm_tree(tag))
    tree[".gitattributes"] = "".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in patterns).encode()
    tree[".gitmodules"] = _submodule("3rdparty/cutlass", CUTLASS)
    tree["3rdparty/cutlass"] = Gitlink(cutlass_commit)
    for path in libraries:
        tree[path] = lfs.keep(store, lfs.library(Path(path).name, tag, _LIBRARY_SIZE))
    return tree


def _cutlass() -> list[Release]:
    header = "#pragma once\n// Lab stand-in: a header so that the submodule is not empty.\n#define LAB_CUTLASS_STEP {}\n"
    return [
        Release(
            f"Lab stand-in for cutlass, step {step}",
            {
                "README.md": b"# cutlass: lab stand-in\n\nNothing here is compiled.\n",
                "include/cutlass/version.h": header.format(step).encode(),
            },
            f"lab-{step}",
        )
        for step in (1, 2)
    ]


def build_git(cache: Path) -> dict[str, dict[str, str]]:
    """The three repositories under `cache`/git and the LFS objects under `cache`/git-lfs.

    :return: repository -> tag -> commit
    """
    store = cache / "git-lfs"

    def repository(name: str, releases: list[Release]) -> dict[str, str]:
        commits = gitrepo.build(cache / "git" / f"{name}.git", releases)
        return {release.tag: commits[release.tag] for release in releases if release.tag}

    cutlass = repository(CUTLASS, _cutlass())
    steps = {tag: cutlass["lab-1" if number(tag) < (0, 12, 0) else "lab-2"] for tag in TAGS}
    tensorrt_llm = repository(
        TENSORRT_LLM,
        [
            Release(f"Lab stand-in for TensorRT-LLM {t}", tensorrt_llm_tree(t, steps[t], store), t)
            for t in TAGS
        ],
    )
    backend = repository(
        BACKEND,
        [Release(f"Lab stand-in for {t}", backend_tree(t, tensorrt_llm[t]), t) for t in TAGS],
    )
    return {BACKEND: backend, TENSORRT_LLM: tensorrt_llm, CUTLASS: cutlass}


def build_hub(cache: Path, weights: Path) -> dict[str, dict[str, str]]:
    """The Hub under `cache`/hub serves the folder `weights` as the open model and as the gated one.

    :return: model -> {"revision": 40 hex}
    """
    hub = cache / "hub"
    models = {}
    for name, token in ((MODEL, None), (GATED_MODEL, GATED_TOKEN)):
        models[name] = {"revision": hubindex.publish(hub, name, weights, token)}
    return models


def _downloads(table: object) -> Iterator[tuple[str, str]]:
    """(repository, revision) of every table of a profile that names both, at any depth."""
    if isinstance(table, list):
        for one in table:
            yield from _downloads(one)
    elif isinstance(table, dict):
        name, revision = table.get("repository"), table.get("revision")
        if isinstance(name, str) and isinstance(revision, str):
            yield name, revision
        for one in table.values():
            yield from _downloads(one)


def pinned_revisions(profiles: Path = PROFILES) -> dict[str, str]:
    """model or data set -> the revision that the profiles pin, so that the lab's Hub has exactly those."""
    pinned: dict[str, str] = {}
    for path in sorted(profiles.glob("*.toml")):
        for name, revision in _downloads(tomllib.loads(path.read_text())):
            if pinned.setdefault(name, revision) != revision:
                raise RuntimeError(
                    f"{path.name} pins {name} at {revision}, another profile at {pinned[name]}; the lab's Hub has one"
                    " revision"
                )
    return pinned


def build_small_models(cache: Path, weights: Path) -> dict[str, dict[str, str]]:
    """The Hub under `cache`/hub serves small models under the names and revisions that the profiles pin.

    The data set that quantization is calibrated with is served, too; its name here is datasets/<owner>/<name>.

    :param weights: the folder of the real small model, whose tokenizer they share
    :return: model -> {"revision": 40 hex}
    """
    from tests.lab.standins import calibration_data, small_models

    hub, pinned = cache / "hub", pinned_revisions()
    models = {}
    for name, folder in sorted(small_models.build(cache, weights / "tokenizer.json").items()):
        model = small_models.MODELS[name]
        revision = pinned.get(name, model.revision)
        if revision is None:
            continue
        token = GATED_TOKEN if model.gated else None
        models[name] = {"revision": hubindex.publish(hub, name, folder, token, revision)}
    data = f"{hubindex.DATASETS}/{calibration_data.NAME}"
    revision = pinned.get(calibration_data.NAME, calibration_data.REVISION)
    folder = calibration_data.build(cache)
    return {**models, data: {"revision": hubindex.publish(hub, data, folder, revision=revision)}}


def build(cache: Path) -> dict[str, Any]:
    """Make all content of the mirror under `cache`; a second call without changes only checks it.

    :return: the keys `git` and `models` of lab.json
    """
    # Here and not above: it needs packages that git and the Hub do not need.
    from tests.lab.standins import weights

    with ThreadPoolExecutor(1) as pool:
        index = pool.submit(pypi.build, cache)
        folder = weights.build(cache)
        models = {**build_hub(cache, folder), **build_small_models(cache, folder)}
        content = {"git": build_git(cache), "models": models}
        index.result()
    return content


if __name__ == "__main__":
    import sys

    print(json.dumps(build(Path(sys.argv[1])), indent=1))
