"""A release in words: what would be fetched, run and served, for a reader and for review."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import Artifact, ServingImage
from operations.plan.capacity.driver import MINIMUM_DRIVER
from operations.plan.capacity.fit import deployment
from operations.plan.capacity.forecast import as_dict, forecast
from operations.plan.capacity.forecast import lines as forecast_lines
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.shapes import Shape
from operations.plan.catalog.sources import DOCKERFILES
from operations.plan.catalog.support_matrix import PLAIN_RELEASES, RELEASES, StackRelease
from operations.plan.catalog.template_parameters import parameters_of
from operations.plan.catalog.version_floors import FLOORS
from operations.plan.errors import PlanError
from operations.plan.inventory import door_settings
from operations.plan.inventory.gateway_settings import IMAGE
from operations.plan.inventory.monitoring_settings import DCGM_IMAGE, NODE_IMAGE
from operations.plan.inventory.settings import from_host_data
from operations.plan.planning import FIRST_LLMAPI_VERSION, LAST_ENGINE_VERSION, plan_release
from operations.plan.profile.model_repository import DEFAULTS, text_of
from operations.plan.profile.profiles import EngineProfile, PlanProfile, Profile, load_profile, plain_image
from operations.plan.profile.tables import Golden, SearchGolden
from operations.plan.release import Release
from operations.plan.serving import serve

NOT_KNOWN, UNKNOWN = "not known", "?"
# Stands for a digest the inventory must give: a plan can be read before it is known.
UNKNOWN_DIGEST = f"sha256:{'0' * 64}"

# GPU models by nvidia-smi's name, every one that a shape of operations/plan/catalog/shapes.py has: compute capability, memory in MiB
# (nvidia-smi --query-gpu=name,compute_cap,memory.total; the H200 row was read on one, those of A10 to H100 are NVIDIA's published
# figures, and the rest as public reports show them).
KNOWN_GPUS = {
    "Tesla P100-SXM2-16GB": ("6.0", 16280),
    "Tesla V100-SXM2-16GB": ("7.0", 16160),
    "NVIDIA A10": ("8.6", 23028),
    "NVIDIA A100-SXM4-40GB": ("8.0", 40960),
    "NVIDIA A100-SXM4-80GB": ("8.0", 81920),
    "NVIDIA L40S": ("8.9", 46068),
    "NVIDIA H100 80GB HBM3": ("9.0", 81559),
    "NVIDIA H200": ("9.0", 143771),
    "NVIDIA B200": ("10.0", 183359),
    "NVIDIA B300 SXM6 AC": ("10.3", 275040),
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": ("12.0", 97887),
}


def gpu_name(row: Shape) -> str:
    """nvidia-smi's name of a shape's GPUs."""
    return next(name for name, (_, memory) in KNOWN_GPUS.items() if row.has_gpu(name, memory))


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
    + release: YY.MM in the place of the profile's, and in its base of the same month

    Raises PlanError for what cannot be planned.
    """
    profile = load_profile(name)
    if release:
        image = {"release": release}
        if profile.image.base and profile.image.release in profile.image.base:
            image["base"] = profile.image.base.replace(profile.image.release, release)
        profile = load_profile(name, {"image": image})
    return planned(name, profile, data, gpus)


def planned(name: str, profile: Profile, data: Mapping[str, Any], gpus: str | None = None) -> Release:
    """The same for a profile that was read already."""
    if gpus is None:
        if profile.hardware is None:
            raise PlanError("--gpus", "nothing", "NAME:COUNT", "the profile names no hardware of its own")
        gpus = f"{profile.hardware.gpu}:{profile.hardware.count}"
    images = [row.image for row in RELEASES.values()]
    images += [image for file in DOCKERFILES.values() for image in (file.base, file.pytorch)]
    images.append(plain_image(profile))
    if isinstance(profile, PlanProfile):
        images.append(profile.documents.image)
    if isinstance(gateway := data.get("gateway"), Mapping):
        images.append(str(gateway.get("image", IMAGE)))
    if isinstance(door := data.get("door"), Mapping):
        images.append(str(door.get("image", door_settings.IMAGE)))
    images += _of_exporters(data.get("monitoring"))
    digests = dict.fromkeys(images, UNKNOWN_DIGEST) | data.get("image_digests", {})
    settings = from_host_data({**data, "model": name, "image_digests": digests}, "explain")
    return plan_release(settings, gpus_from(gpus), profile=profile)


def _of_exporters(monitoring: object) -> list[str]:
    """The images of the exporters that an inventory wants, as far as its table is one."""
    tables = monitoring.get("exporters") if isinstance(monitoring, Mapping) else None
    known = {"node": NODE_IMAGE, "dcgm": DCGM_IMAGE}
    given = tables if isinstance(tables, Mapping) else {}
    return [
        str(given[kind].get("image", image))
        for kind, image in known.items()
        if isinstance(given.get(kind), Mapping)
    ]


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
        f"release {stack.release}: Triton {stack.triton or NOT_KNOWN}{f' (of {stack.base})' if stack.base else ''}, "
        f"TensorRT-LLM {stack.tensorrt_llm or 'none'}, TensorRT {stack.tensorrt or NOT_KNOWN}, CUDA {stack.cuda}",
        driver_needed(stack),
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
    for golden in profile.golden_requests:
        section("golden request", _golden(golden))
    seen = deployment(profile, stack, release.gpus[0])
    if seen:
        section("forecast", *forecast_lines(forecast(seen)))
    for warning in release.warnings:
        section("warning", warning)
    return "\n".join(lines) + "\n"


def driver_needed(stack: StackRelease) -> str:
    """What a release asks of the host's driver: what its CUDA runs on, and what is free of known holes."""
    least = MINIMUM_DRIVER[int(stack.cuda.split(".")[0])]
    newest = max(
        (floor for floor in FLOORS if floor.component == "driver"), key=lambda floor: floor.published
    )
    floors = [floor.minimum for floor in FLOORS if floor.bulletin == newest.bulletin]
    made_with = f"; made with {stack.driver}" if stack.driver else ""
    return (
        f"driver: {least} or later for CUDA {stack.cuda.split('.')[0]}{made_with}; "
        f"by {newest.bulletin} {', '.join(floors[:-1])} or {floors[-1]}, of its branch, or a newer branch"
    )


def _golden(golden: Golden | SearchGolden) -> str:
    if isinstance(golden, Golden):
        wanted = f"starts with {golden.expect!r}" if golden.expect else "at least one word"
        return f"{golden.model}: {golden.title!r}, {golden.max_tokens} tokens: {wanted}"
    asked = [repr(golden.text)] if golden.text else []
    asked += [f"the picture of {golden.image_of}"] if golden.image_of else []
    return f"{golden.model}: {' and '.join(asked)}: the document {golden.expect}"


def _shown(step: tuple[str, ...]) -> str:
    """A command without what repeats: git's environment, the partial directory's name."""
    words = list(step)
    if words[0] == "env":
        words = [word for word in words if not word.startswith(("HOME=", "GIT_TERMINAL_PROMPT="))]
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
    known = set(parameters_of(model, release.stack.version))
    if isinstance(profile, EngineProfile):
        known.update(profile.repository.unlisted)
    return [(name, *chosen[name]) for name in sorted(known) if name in chosen]


def matrix_rows() -> list[dict[str, str]]:
    """The support matrix, an image a row: column -> value."""
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
    rows = []
    for row in (*RELEASES.values(), *PLAIN_RELEASES.values()):
        kinds = "engine, llmapi" if row.version >= FIRST_LLMAPI_VERSION else "engine"
        if row.version[:2] > LAST_ENGINE_VERSION:
            kinds = "llmapi"
        if not row.tensorrt_llm:
            kinds = "plan"
        tag = row.backend_tag or "none"
        rows.append(
            (
                row.release,
                row.triton or UNKNOWN,
                row.tensorrt_llm or "none",
                row.tensorrt or UNKNOWN,
                row.cuda,
                row.driver or UNKNOWN,
                row.python or UNKNOWN,
                tag,
                kinds,
            )
        )
    return [dict(zip(heads, row, strict=True)) for row in rows]


def matrix() -> str:
    """The same as text, one line an image."""
    found = matrix_rows()
    rows = [tuple(found[0]), *(tuple(row.values()) for row in found)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _served(release: Release) -> list[str]:
    script = release.files["serve"].replace("\\\n", " ")
    command = next(line for line in script.splitlines() if line.startswith("exec docker run"))
    words = shlex.split(command.removeprefix("exec "))
    at = words.index(serve.IMAGE)
    given = words[2:at]
    # a label's value says which run made the container: without it the line can be copied
    labels = {number for number, word in enumerate(given) if word == "--label"}
    options = [word for number, word in enumerate(given) if not {number, number - 1} & labels]
    return [shlex.join(words[at + 1 :]), f"docker run {shlex.join(options)}"]
