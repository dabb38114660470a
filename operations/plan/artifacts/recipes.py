"""How each artifact of a release is made: inputs and commands, for every kind of profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import Artifact, ServingImage, Step, frozen, partial_path
from operations.plan.artifacts.keys import Inputs, canonical, digest
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.sources import BACKEND_COMMITS, BACKEND_URL, DOCKERFILE
from operations.plan.catalog.support_matrix import (
    IMAGE_TEMPLATE_ROOTS,
    TEMPLATES_IN_IMAGE,
    StackRelease,
    converter_candidates,
    dockerfile_of,
    plain_tensorrt,
    quantizer_candidates,
)
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings
from operations.plan.profile import own_models
from operations.plan.profile.profiles import (
    EngineProfile,
    LlmApiProfile,
    PlanProfile,
    Profile,
    plain_image,
)
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


def check_images(settings: Settings, profile: Profile, stack: StackRelease) -> None:
    """Raises PlanError where an image has no digest, or a checkout no commit; no host need be known."""
    if isinstance(profile, PlanProfile):
        _own_image(settings, profile)
        database_image(settings, profile)
    else:
        source_and_image(settings, profile, stack)


def _encoders(settings: Settings, profile: PlanProfile, stack: StackRelease, gpus: tuple[Gpu, ...]) -> Recipe:
    """Two encoders, each downloaded, exported and built separately."""
    image = _own_image(settings, profile)
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


def gpu_selection(settings: Settings) -> str:
    """The value of NVIDIA_VISIBLE_DEVICES: the chosen GPUs by index, or all."""
    chosen = settings.gpu_ids
    return "all" if chosen == "all" else ",".join(str(index) for index in chosen)


def source_and_image(
    settings: Settings, profile: Profile, stack: StackRelease
) -> tuple[Artifact, ServingImage]:
    """The source of the model repository's templates, and the serving image: each may be made from the other."""
    if profile.image.source == "pull":
        derived = isinstance(profile, LlmApiProfile) and stack.version >= OPENAI_SINCE
        image = _llm_api_image(settings, stack) if derived else _pulled_image(settings, stack)
        if stack.version >= TEMPLATES_IN_IMAGE:
            return _source_in_image(settings, profile, image), image
        return _checkout(settings, profile, stack), image
    source = _checkout(settings, profile, stack)
    return source, _built_image(settings, profile, stack, source)


def _source_in_image(settings: Settings, profile: Profile, image: ServingImage) -> Artifact:
    """The templates in a pulled image: they fit it best, and the newest releases have no others."""
    roots = [f"{root}/{profile.templates}" for root in IMAGE_TEMPLATE_ROOTS]
    inputs = {"image": image.key, "templates": roots}
    place = Artifact("source", settings.data_root, inputs, ())
    copy = (
        'for root in "$@"; do if [ -d "$root" ]; then mkdir -p /output/tree && cp -R "$root" /output/tree/templates '
        '&& exit 0; fi; done; echo "no templates in the serving image, looked for: $*" >&2; exit 66'
    )
    step = commands.worker(
        image.tag,
        ["sh", "-c", copy, "copy-templates", *roots],
        name=place.unit,
        mounts={partial_path(place.path): commands.OUTPUT},
    )
    # like a checkout, without a list of files: the release has its own copies and its own list
    return Artifact("source", settings.data_root, inputs, frozen([step]), checksums=False)


def _checkout(settings: Settings, profile: Profile, stack: StackRelease) -> Artifact:
    """The checkout of tensorrtllm_backend: the sources of an image, and the model repository's templates."""
    tag = str(stack.backend_tag)  # a release without a tag is pulled, and has its templates in the image
    commit = settings.backend_commits.get(tag) or BACKEND_COMMITS.get(tag)
    if commit is None:
        raise PlanError(
            f"backend_commits.{tag}",
            "nothing",
            "the tag's 40-hex commit",
            f"git ls-remote {BACKEND_URL} {tag}",
            reference="unknown-backend-commit",
        )
    # The submodule TensorRT-LLM is what a build compiles (with its LFS files); it also holds the converters that
    # images before 0.17 lack, and the templates from 0.20 on.
    build = profile.image.source == "build"
    submodules = build or stack.version < (0, 17) or stack.version >= (0, 20)
    inputs = {"repository": BACKEND_URL, "tag": tag, "commit": commit, "submodules": submodules, "lfs": build}
    place = Artifact("source", settings.data_root, inputs, ())
    work = partial_path(place.path)
    steps = commands.checkout(
        url=BACKEND_URL,
        tag=tag,
        commit=commit,
        into=f"{work}/tree",
        home=f"{work}/home",
        mirrors=settings.git_mirrors,
        submodules=submodules,
        lfs=build,
    )
    return Artifact("source", settings.data_root, inputs, frozen(steps), checksums=False)


def _version_check(settings: Settings, name: str, image: str, version: str, imports: str = "") -> list[str]:
    """
    Run the image once: only its content is reliable, not its tag or its release notes.

    + imports: a module that the server will import
    """
    script = (
        "found=$(python3 -c 'import tensorrt_llm; print(tensorrt_llm.__version__)' | tail -n 1); "
        '[ "$found" = "$0" ] || { echo "TensorRT-LLM in the image: found $found, expected $0" >&2; exit 65; }'
    )
    if imports:
        script += f"; python3 -c 'import {imports}'"
    return commands.worker(image, ["sh", "-c", script, version], name=name, gpus=gpu_selection(settings))


def _pulled_image(settings: Settings, stack: StackRelease) -> ServingImage:
    reference = pinned(settings, settings.image_registry, stack.image)
    inputs: Inputs = {
        "source": "pull",
        "image": stack.image,
        "digest": settings.image_digests[stack.image],
    }
    draft = ServingImage(inputs, ())
    steps = [
        ["docker", "pull", reference],
        _version_check(settings, draft.unit, reference, stack.tensorrt_llm),
        ["docker", "tag", reference, draft.tag],
    ]
    return ServingImage(inputs, frozen(steps))


def _built_image(settings: Settings, profile: Profile, stack: StackRelease, source: Artifact) -> ServingImage:
    file = dockerfile_of(stack)
    base = profile.image.base or file.base
    repository, tag = base.split(":")
    digests, registry = settings.image_digests, settings.image_registry
    named = {"BASE_IMAGE": f"{registry}/{repository}"}
    if file.pytorch:
        named["PYTORCH_IMAGE"] = pinned(settings, registry, file.pytorch)
    # the tag stays for readers: in name:tag@digest only the digest counts
    named["BASE_TAG"] = f"{tag}@{pinned(settings, registry, base).partition('@')[2]}"
    inputs = {"source": "build", "tree": source.key, "base": base, "base_digest": digests[base]}
    if file.pytorch:
        inputs |= {"pytorch": file.pytorch, "pytorch_digest": digests[file.pytorch]}
    draft = ServingImage(inputs, ())
    arguments = [f"--build-arg={name}={value}" for name, value in sorted(named.items())]
    arguments.append(f"--file={source.path}/tree/{DOCKERFILE}")

    def look(building: str) -> list[str]:
        return _version_check(settings, draft.unit, building, stack.tensorrt_llm)

    return ServingImage(inputs, _build_steps(draft, arguments, f"{source.path}/tree", look))


# TensorRT-LLM 1.2 imports a class that the openai package of its images lacks (1.107.3 in 26.03 and 26.07), so no model of
# the LLM API loads: docs/getting_started/llm.md of triton-inference-server/server, which says to install a newer one. Our
# containers have no network and no place to install to.
OPENAI_SINCE = (1, 2)
# The module that runs every model of the PyTorch backend, and imports the rest
_EXECUTOR = "tensorrt_llm._torch.pyexecutor.py_executor"


def _llm_api_image(settings: Settings, stack: StackRelease) -> ServingImage:
    """NVIDIA's image with TensorRT-LLM, with one package in another version: files/image/llmapi."""

    def look(name: str, building: str) -> list[str]:
        return _version_check(settings, name, building, stack.tensorrt_llm, _EXECUTOR)

    return _derived_image(settings, stack.image, "llmapi", look)


def _build_steps(
    draft: ServingImage, arguments: list[str], context: str, look: Callable[[str], list[str]]
) -> tuple[tuple[str, ...], ...]:
    """
    docker build, a check of the result, and only then the tag that a release uses.

    + look: tag -> the command that fails if the image is wrong
    """
    building = f"{draft.tag}-building"
    build = ["env", "DOCKER_BUILDKIT=1", "docker", "build", "--progress=plain", "--network=host", *arguments]
    build += [f"--tag={building}", f"--label=tritonhost.image={draft.key}", context]
    return frozen(
        [
            build,
            look(building),
            ["docker", "tag", building, draft.tag],
            ["docker", "rmi", "--no-prune", building],
        ]
    )


def _own_image(settings: Settings, profile: PlanProfile) -> ServingImage:
    """NVIDIA's plain Triton image, which has the TensorRT backend, with the packages of files/image/plan."""

    def look(name: str, building: str) -> list[str]:
        trtexec = commands.first_of(commands.TRTEXEC, (), interpreter="test -x ")
        return commands.worker(building, trtexec, name=name)

    return _derived_image(settings, plain_image(profile), "plan", look)


def _derived_image(
    settings: Settings, base: str, kind: str, look: Callable[[str, str], list[str]]
) -> ServingImage:
    """
    An NVIDIA image with the Python packages that files/image/<kind> names by hash.

    + look: name of a container, tag -> the command that fails if the image is wrong
    """
    reference = pinned(settings, settings.image_registry, base)
    context = {name: own_models.image_file(name, kind) for name in ("Dockerfile", "requirements.txt")}
    inputs: Inputs = {"source": "build", "base": base, "base_digest": settings.image_digests[base]}
    inputs = {**inputs, "files": {name: digest(text) for name, text in context.items()}}
    draft = ServingImage(inputs, ())
    arguments = [f"--build-arg=BASE={reference}"]
    if url := settings.python_index_url:
        arguments.append(f"--build-arg=INDEX_URL={url}")
        if url.startswith("http://"):
            arguments.append(f"--build-arg=TRUSTED_HOST={urlsplit(url).hostname}")
    place = f"/run/tritonhost/{draft.unit}"
    steps = _build_steps(draft, arguments, place, lambda building: look(draft.unit, building))
    return ServingImage(inputs, steps, files=context)


def pinned(settings: Settings, registry: str, image: str) -> str:
    """registry/name@digest. Raises PlanError if the inventory does not have the digest."""
    digest = settings.image_digests.get(image)
    if digest is None:
        raise PlanError(
            f"image_digests[{image!r}]",
            "nothing",
            "the image's sha256 digest",
            f"docker buildx imagetools inspect {registry}/{image}",
            reference="image-without-digest",
        )
    return f"{registry}/{image.split(':')[0]}@{digest}"


def database_image(settings: Settings, profile: PlanProfile) -> ServingImage:
    """PostgreSQL with pgvector, as its project publishes it."""
    return _from_docker_hub(settings, profile.documents.image, "database")


def gateway_image(settings: Settings, image: str) -> ServingImage:
    """nginx, as Docker publishes it."""
    return _from_docker_hub(settings, image, "gateway")


def _from_docker_hub(settings: Settings, image: str, name: str) -> ServingImage:
    reference = pinned(settings, settings.docker_hub_registry, image)
    inputs: Inputs = {"source": "pull", "image": image, "digest": settings.image_digests[image]}
    draft = ServingImage(inputs, (), name=name)
    steps = [["docker", "pull", reference], ["docker", "tag", reference, draft.tag]]
    return ServingImage(inputs, frozen(steps), name=name)


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
