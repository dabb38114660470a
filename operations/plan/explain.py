"""A release in words: what would be fetched, run and served, for a reader and for review."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from operations.plan import commands, serve
from operations.plan.artifacts import Artifact, ServingImage
from operations.plan.capacity import deployment
from operations.plan.errors import PlanError
from operations.plan.forecast import as_dict, forecast
from operations.plan.forecast import lines as forecast_lines
from operations.plan.gateway import IMAGE
from operations.plan.gpu import Gpu
from operations.plan.model_repository import DEFAULTS, text_of
from operations.plan.profile_tables import Golden, SearchGolden
from operations.plan.profiles import EngineProfile, PlanProfile, Profile, load_profile
from operations.plan.release import FIRST_LLMAPI_VERSION, LAST_ENGINE_VERSION, Release, plan_release
from operations.plan.settings import from_host_data
from operations.plan.support_matrix import RELEASES
from operations.plan.template_parameters import parameters_of

# Stands for a digest the inventory must give: a plan can be read before it is known.
UNKNOWN_DIGEST = f"sha256:{'0' * 64}"

# GPU models by nvidia-smi's name: compute capability, memory in MiB (nvidia-smi --query-gpu=name,compute_cap,memory.total;
# the H200 row was read on one, the others are NVIDIA's published figures).
KNOWN_GPUS = {
    "NVIDIA A10": ("8.6", 23028),
    "NVIDIA A100-SXM4-40GB": ("8.0", 40960),
    "NVIDIA A100-SXM4-80GB": ("8.0", 81920),
    "NVIDIA L40S": ("8.9", 46068),
    "NVIDIA H100 80GB HBM3": ("9.0", 81559),
    "NVIDIA H200": ("9.0", 143771),
}


def gpus_from(text: str) -> tuple[Gpu, ...]:
    """`NVIDIA A10:4` -> four of them, as a host with such GPUs would report."""
    name, _, count = text.rpartition(":")
    if name not in KNOWN_GPUS or not count.isdigit() or not 1 <= int(count) <= 64:
        raise PlanError("--gpus", text, "NAME:COUNT", f"names: {', '.join(KNOWN_GPUS)}")
    capability, memory = KNOWN_GPUS[name]
    return tuple(
        Gpu(i, name, f"GPU-{i}", capability, memory, memory, RELEASES[max(RELEASES)].driver)
        for i in range(int(count))
    )


def explained(
    name: str, data: Mapping[str, Any], gpus: str | None = None, release: str | None = None
) -> Release:
    """
    The release that a profile decides, without a host.

    + name: the profile
    + data: inventory data, as in group_data/all.py; image digests it lacks are shown as zeros
    + gpus: NAME:COUNT; None takes the profile's own hardware
    + release: YY.MM in the place of the profile's

    Raises PlanError for what cannot be planned.
    """
    return planned(name, load_profile(name, {"image": {"release": release}} if release else None), data, gpus)


def planned(name: str, profile: Profile, data: Mapping[str, Any], gpus: str | None = None) -> Release:
    """The same for a profile that was read already."""
    if gpus is None:
        if profile.hardware is None:
            raise PlanError("--gpus", "nothing", "NAME:COUNT", "the profile names no hardware of its own")
        gpus = f"{profile.hardware.gpu}:{profile.hardware.count}"
    images = [row.image for row in RELEASES.values()]
    if isinstance(profile, PlanProfile):
        images += [profile.image.base or "", profile.documents.image]
    if isinstance(gateway := data.get("gateway"), Mapping):
        images.append(str(gateway.get("image", IMAGE)))
    digests = dict.fromkeys(images, UNKNOWN_DIGEST) | data.get("image_digests", {})
    settings = from_host_data({**data, "model": name, "image_digests": digests}, "explain")
    return plan_release(settings, gpus_from(gpus), profile=profile)


def explain(name: str, data: Mapping[str, Any], gpus: str | None = None, release: str | None = None) -> str:
    """Everything one profile decides, as text; parameters and errors as for `explained`."""
    return text(explained(name, data, gpus, release))


def as_json(release: Release) -> str:
    """The same for a program: release.json, and beside it every command, value, forecast and warning."""
    seen = deployment(release.profile, release.stack, release.gpus[0])
    document = {
        **release.document(),
        "hardware": {"gpu": release.gpus[0].name, "count": len(release.gpus)},
        "commands": {
            **{image.title: image.commands for image in release.images},
            **{f"{a.kind} {a.key}": a.commands for a in release.artifacts},
        },
        "config": {
            model: {name: {"value": value, "from": origin} for name, value, origin in _values(release, model)}
            for model in (release.models if isinstance(release.profile, EngineProfile) else ())
        },
        "files": {**release.profile.model_files(commands.WEIGHTS), **release.files},
        "forecast": as_dict(forecast(seen)) if seen else None,
        "warnings": release.warnings,
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def text(release: Release) -> str:
    """The release as lines."""
    profile, stack, lines = release.profile, release.stack, []
    gpus = f"{release.gpus[0].name}:{len(release.gpus)}"

    def section(title: str, *content: str) -> None:
        lines.extend(["", title, *(f"  {line}" for line in content)])

    lines.append(f"{release.settings.model}: {profile.summary}")
    section(
        "stack",
        f"release {stack.release}: Triton {stack.triton}, TensorRT-LLM {stack.tensorrt_llm}, "
        f"TensorRT {stack.tensorrt}, CUDA {stack.cuda}",
        f"planned for {gpus}{f' ({profile.hardware.shape})' if profile.hardware else ''}",
    )
    for step in release.recipe.downloads:
        what = step.artifact.inputs
        needs = ["gated: needs HF_TOKEN"] if step.artifact.needs_token else []
        section(step.artifact.kind, f"{what['repository']} at {what['revision']}", *needs)
    source = (release.source,) if release.source else ()
    order: tuple[Artifact | ServingImage, ...] = (*source, *release.images)
    for work in reversed(order) if release.image_first else order:
        title = "source" if isinstance(work, Artifact) else f"{work.name} image"
        section(title, *(_shown(command) for command in work.commands))
    for step in release.recipe.steps:
        section(step.title, *_in_container(step.artifact, release.image.tag))
    for path, content in profile.model_files(commands.WEIGHTS).items():
        if path.endswith((".pbtxt", ".yaml")):  # what a profile decides; scripts are the project's own
            section(f"model repository: {path}", *content.splitlines())
    for model in release.models if isinstance(profile, EngineProfile) else ():
        section(f"model repository: {model}/config.pbtxt", *_parameters(release, model))
    section("served", *_served(release))
    for golden in profile.golden:
        section("golden request", _golden(golden))
    seen = deployment(profile, stack, release.gpus[0])
    if seen:
        section("forecast", *forecast_lines(forecast(seen)))
    for warning in release.warnings:
        section("warning", warning)
    return "\n".join(lines) + "\n"


def _golden(golden: Golden | SearchGolden) -> str:
    if isinstance(golden, Golden):
        wanted = f"starts with {golden.expect!r}" if golden.expect else "at least one word"
        return f"{golden.model}: {golden.prompt!r}, {golden.max_tokens} tokens: {wanted}"
    asked = [repr(golden.text)] if golden.text else []
    asked += [f"the picture of {golden.image_of}"] if golden.image_of else []
    return f"{golden.model}: {' and '.join(asked)}: the document {golden.expect}"


def _shown(step: tuple[str, ...]) -> str:
    """A command without what repeats: git's environment, the partial directory's name."""
    words = [word for word in step if not word.startswith(("HOME=", "GIT_TERMINAL_PROMPT="))]
    return shlex.join(words[1:] if words[0] == "env" and "=" not in words[1] else words)


def _in_container(artifact: Artifact, image: str) -> list[str]:
    """The command inside the serving image, without docker's options."""
    words = list(artifact.commands[0])
    words = words[words.index(image) + 1 :]
    if "first-of" not in words:
        return [shlex.join(words)]
    # a script that is looked for in several places: the places, then its arguments
    at = words.index("first-of")
    count = int(words[at + 1])
    candidates, arguments = words[at + 2 : at + 2 + count], words[at + 2 + count :]
    return [
        f"{'python3 ' if 'exec python3' in words[at - 1] else ''}{candidates[0]} {shlex.join(arguments)}",
        f"also looked for: {' '.join(candidates[1:])}",
    ]


def _parameters(release: Release, model: str) -> list[str]:
    return [f"{name} = {value}  ({origin})" for name, value, origin in _values(release, model)]


def _values(release: Release, model: str) -> list[tuple[str, str, str]]:
    """Each filled placeholder of one model: its name, its value, and who says so."""
    profile = release.profile
    said = profile.repository.parameters if isinstance(profile, EngineProfile) else {}
    origins = (
        ("default", DEFAULTS),
        ("plan", release.parameters),
        ("profile", said),
        ("profile, this model", profile.model_parameters.get(model, {})),
    )
    chosen = {name: (text_of(value), origin) for origin, values in origins for name, value in values.items()}
    known = parameters_of(model, release.stack.version)
    return [(name, *chosen[name]) for name in sorted(known) if name in chosen]


def matrix() -> str:
    """The support matrix, one line an image."""
    heads = (
        "release",
        "triton",
        "tensorrt-llm",
        "tensorrt",
        "cuda",
        "driver",
        "python",
        "backend tag",
        "kinds",
    )
    rows = [heads]
    for row in RELEASES.values():
        kinds = "engine, llmapi" if row.version >= FIRST_LLMAPI_VERSION else "engine"
        if row.version[:2] > LAST_ENGINE_VERSION:
            kinds = "llmapi"
        tag = row.backend_tag or "none"
        rows.append(
            (
                row.release,
                row.triton,
                row.tensorrt_llm,
                row.tensorrt,
                row.cuda,
                row.driver,
                row.python,
                tag,
                kinds,
            )
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _served(release: Release) -> list[str]:
    script = release.files["serve"].replace("\\\n", " ")
    command = next(line for line in script.splitlines() if line.startswith("exec docker run"))
    words = shlex.split(command.removeprefix("exec "))
    at = words.index(serve.IMAGE)
    options = [word for word in words[2:at] if not word.startswith("tritonhost.")]
    return [shlex.join(words[at + 1 :]), f"docker run {shlex.join(options)}"]
