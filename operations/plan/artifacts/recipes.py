"""How each artifact of a release is made: inputs and commands, for every kind of profile."""

from __future__ import annotations

from dataclasses import dataclass

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import Artifact, ServingImage, Step, frozen, partial_path
from operations.plan.artifacts.images import gpu_selection, own_image, source_and_image
from operations.plan.artifacts.keys import Inputs, canonical, digest
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.support_matrix import (
    StackRelease,
    converter_candidates,
    plain_tensorrt,
    quantizer_candidates,
)
from operations.plan.inventory.settings import Settings
from operations.plan.profile import own_models
from operations.plan.profile.profiles import EngineProfile, PlanProfile, Profile
from operations.plan.profile.tables import Dataset, Encoder, Weights


@dataclass(frozen=True)
class Recipe:
    """What a release is made of, in the order in which it is made."""

    source: Artifact | None  # the checkout, or the templates of an image; None: the project's own models
    image: ServingImage
    downloads: tuple[Step, ...]
    steps: tuple[Step, ...]
    mounts: dict[
        str, str
    ]  # what the server reads in addition to the release: path on the host -> in the container
    # the hub's small files, by role; read before the weights are downloaded, and not needed afterwards
    descriptions: dict[str, Step]


def recipe(settings: Settings, profile: Profile, stack: StackRelease, gpus: tuple[Gpu, ...]) -> Recipe:
    """How everything that a profile needs is made, for each kind."""
    if isinstance(profile, PlanProfile):
        return _encoders(settings, profile, stack, gpus)
    source, image = source_and_image(settings, profile, stack)
    downloaded = weights(settings, profile.weights, image)
    mounts = {downloaded.path: commands.WEIGHTS}
    download = Step("Download the weights", downloaded)
    described = {
        "weights": _described(
            "Read the hub's description of the weights", settings, profile.weights, image, downloaded
        )
    }
    if not isinstance(profile, EngineProfile):
        return Recipe(source, image, (download,), (), mounts, described)
    calibration = profile.checkpoint.dataset
    calibrated = weights(settings, calibration, image) if calibration else None
    converted = checkpoint(settings, profile, stack, source, image, downloaded, calibrated)
    built = engine(settings, profile, stack, image, converted, gpus)
    extra = (Step("Download the calibration dataset", calibrated, unless=built),) if calibrated else ()
    steps = (
        Step("Convert the weights to a checkpoint", converted, unless=built),
        Step("Build the engine", built),
    )
    mounts = {built.path: commands.ENGINE, **mounts}
    return Recipe(source, image, (download, *extra), steps, mounts, described)


def _encoders(settings: Settings, profile: PlanProfile, stack: StackRelease, gpus: tuple[Gpu, ...]) -> Recipe:
    """Two encoders, each downloaded, exported and built separately."""
    image = own_image(settings, profile)
    downloads: list[Step] = []
    steps: list[Step] = []
    mounts = {}
    descriptions: dict[str, Step] = {}
    for role, encoder in profile.encoders.items():
        downloaded = weights(settings, encoder.weights, image)
        exported = _onnx(settings, profile, encoder, image, downloaded)
        built = _plan(settings, profile, stack, encoder, image, exported, gpus)
        title = f"Read the hub's description of the {role} encoder"
        descriptions[role] = _described(title, settings, encoder.weights, image, downloaded)
        downloads.append(Step(f"Download the {role} encoder's weights", downloaded))
        steps.append(Step(f"Export the {role} encoder to ONNX", exported, unless=built))
        steps.append(Step(f"Build the {role} encoder's plan", built))
        mounts[built.path] = f"{commands.RELEASE}/model_repository/clip_{role}/1"
        mounts[downloaded.path] = f"{commands.WEIGHTS}/{role}"
    return Recipe(None, image, tuple(downloads), tuple(steps), mounts, descriptions)


def weights(settings: Settings, wanted: Weights | Dataset, image: ServingImage) -> Artifact:
    """One revision of a Hugging Face repository, downloaded and verified inside the serving image."""
    return _from_hub("dataset" if isinstance(wanted, Dataset) else "weights", settings, wanted, image)


def _described(
    title: str, settings: Settings, wanted: Weights, image: ServingImage, downloaded: Artifact
) -> Step:
    """The small files that describe the weights; the complete weights include them."""
    return Step(title, _from_hub("description", settings, wanted, image), unless=downloaded)


def _from_hub(kind: str, settings: Settings, wanted: Weights | Dataset, image: ServingImage) -> Artifact:
    inputs: dict[str, object] = {
        "repository": wanted.repository,
        "revision": wanted.revision,
        "include": list(wanted.include),
        "exclude": list(wanted.exclude),
        "allow_pickle": isinstance(wanted, Weights) and wanted.allow_pickle,
    }
    if isinstance(wanted, Weights) and wanted.code_revision:
        # only if it is set: a further input would give every other download a new key
        inputs["code_revision"] = wanted.code_revision
    place = Artifact(kind, settings.data_root, inputs, ())
    request = {**inputs, "endpoint": settings.hub_endpoint, "type": kind}
    steps = [
        commands.worker(
            image.tag,
            [
                "python3",
                f"{commands.WORK}/download_weights.py",
                f"{commands.WORK}/request.json",
                commands.OUTPUT,
            ],
            name=place.unit,
            user=0,  # only root can read the token
            network="host",
            mounts={_unit_directory(place): commands.WORK, partial_path(place.path): commands.OUTPUT},
        )
    ]
    return Artifact(
        kind,
        settings.data_root,
        inputs,
        frozen(steps),
        resumable=True,
        needs_token=wanted.gated,
        files={"request.json": canonical(request), "download_weights.py": "@files/image/download_weights.py"},
    )


def _unit_directory(place: Artifact) -> str:
    """Where start_work.sh puts the files of an artifact's unit."""
    return f"/run/tritonhost/{place.unit}"


def checkpoint(
    settings: Settings,
    profile: EngineProfile,
    stack: StackRelease,
    source: Artifact,
    image: ServingImage,
    weights: Artifact,
    calibration: Artifact | None = None,
) -> Artifact:
    """Converted or quantized weights, in TensorRT-LLM's own format."""
    recipe = profile.checkpoint
    if recipe.quantization:
        command = commands.quantize(recipe, stack.tensorrt_llm, quantizer_candidates(stack.version))
    else:
        command = commands.convert(
            recipe, stack.tensorrt_llm, converter_candidates(recipe.family, stack.version)
        )
    inputs: dict[str, object] = {
        "weights": weights.key,
        "image": image.key,
        "source": source.key,
        "command": command[5:],
    }
    mounts = {weights.path: commands.WEIGHTS}
    if calibration and recipe.dataset:
        inputs["calibration"] = calibration.key
        mounts[calibration.path] = commands.calibration_path(recipe.dataset)
    if not comes_from(source, image):
        # Images before 0.17 contain no examples: their READMEs mount the clone under this name.
        mounts[f"{source.path}/tree"] = "/tensorrtllm_backend"
    ranks = recipe.tensor_parallel * recipe.pipeline_parallel
    names = ("config.json", *(f"rank{rank}.safetensors" for rank in range(ranks)))
    return _made_in_image("checkpoint", settings, image, inputs, command, mounts, profile, names)


def comes_from(source: Artifact | None, image: ServingImage) -> bool:
    """Whether the templates come from the image, not from a checkout."""
    return source is not None and source.inputs.get("image") == image.key


def _onnx(
    settings: Settings, profile: PlanProfile, encoder: Encoder, image: ServingImage, weights: Artifact
) -> Artifact:
    """One encoder as an ONNX graph; for int8 it is quantized and calibrated with the profile's documents."""
    request = {
        "architecture": encoder.architecture,
        "embedding_size": encoder.embedding_size,
        "image_size": encoder.image_size,
        "text_tokens": encoder.text_tokens,
        "precision": encoder.precision,
    }
    scripts = {name: own_models.image_file(name) for name in ("export_onnx.py", "encoder_inputs.py")}
    files = {**scripts, "request.json": canonical(request)}
    if encoder.precision == "int8":
        files["documents.jsonl"] = own_models.documents(profile.documents.seed)
    inputs = {"weights": weights.key, "image": image.key, "files": {n: digest(t) for n, t in files.items()}}
    place = Artifact("onnx", settings.data_root, inputs, ())
    command = ["python3", *(f"{commands.WORK}/{n}" for n in ("export_onnx.py", "request.json"))]
    step = commands.worker(
        image.tag,
        [*command, commands.WEIGHTS, commands.OUTPUT],
        name=place.unit,
        mounts={
            _unit_directory(place): commands.WORK,
            weights.path: commands.WEIGHTS,
            partial_path(place.path): commands.OUTPUT,
        },
    )
    return Artifact("onnx", settings.data_root, inputs, frozen([step]), files=files)


def _plan(
    settings: Settings,
    profile: PlanProfile,
    stack: StackRelease,
    encoder: Encoder,
    image: ServingImage,
    onnx: Artifact,
    gpus: tuple[Gpu, ...],
) -> Artifact:
    """One encoder's TensorRT plan, which fits one image and one model of GPU."""
    command = commands.trtexec(encoder, plain_tensorrt(stack.triton_release))
    inputs = {
        "onnx": onnx.key,
        "image": image.key,
        "gpu": gpus[0].name,
        "compute_capability": gpus[0].compute_capability,
        "command": command,
    }
    return _made_in_image("plan", settings, image, inputs, command, {onnx.path: commands.ONNX}, profile)


def engine(
    settings: Settings,
    profile: EngineProfile,
    stack: StackRelease,
    image: ServingImage,
    checkpoint: Artifact,
    gpus: tuple[Gpu, ...],
) -> Artifact:
    """The engine, which fits one image and one model of GPU."""
    command = commands.build_engine(profile.engine, stack.tensorrt_llm)
    inputs = {
        "checkpoint": checkpoint.key,
        "image": image.key,
        "tensorrt_llm": stack.tensorrt_llm,
        "tensorrt": stack.tensorrt,
        # An engine fits the GPU that it was built on, with any driver.
        "gpu": gpus[0].name,
        "compute_capability": gpus[0].compute_capability,
        "tensor_parallel": profile.checkpoint.tensor_parallel,
        "pipeline_parallel": profile.checkpoint.pipeline_parallel,
        "command": command,
    }
    ranks = profile.checkpoint.tensor_parallel * profile.checkpoint.pipeline_parallel
    names = ("config.json", *(f"rank{rank}.engine" for rank in range(ranks)))
    mounts = {checkpoint.path: commands.CHECKPOINT}
    return _made_in_image("engine", settings, image, inputs, command, mounts, profile, names)


def _made_in_image(
    kind: str,
    settings: Settings,
    image: ServingImage,
    inputs: Inputs,
    command: list[str],
    mounts: dict[str, str],
    profile: Profile,
    names: tuple[str, ...] = (),
) -> Artifact:
    """
    An artifact made by one command in the serving image, without network, so versions cannot differ.

    + names: the files that it must have made
    """
    place = Artifact(kind, settings.data_root, inputs, ())
    steps = [
        commands.worker(
            image.tag,
            command,
            name=place.unit,
            gpus=gpu_selection(settings),
            mounts={**mounts, partial_path(place.path): commands.OUTPUT},
            options=[
                "--shm-size",
                profile.server.shm_size,
                "--ulimit",
                f"stack={profile.server.stack_bytes}",
            ],
        )
    ]
    return Artifact(kind, settings.data_root, inputs, frozen(steps), names=names)
