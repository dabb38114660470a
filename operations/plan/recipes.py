"""How each artifact of a release is made: inputs and commands, for every kind of profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from operations.plan import commands, own_models
from operations.plan.artifacts import Artifact, ServingImage, Step, frozen, partial_path
from operations.plan.errors import PlanError
from operations.plan.gpu import Gpu
from operations.plan.keys import Inputs, canonical, digest
from operations.plan.profile_tables import Dataset, Encoder, Weights
from operations.plan.profiles import EngineProfile, PlanProfile, Profile
from operations.plan.settings import Settings
from operations.plan.sources import BACKEND_COMMITS, BACKEND_URL
from operations.plan.support_matrix import (
    IMAGE_TEMPLATE_ROOTS,
    TEMPLATES_IN_IMAGE,
    StackRelease,
    converter_candidates,
    quantizer_candidates,
)


@dataclass(frozen=True)
class Recipe:
    """What a release is made of, in the order it is made."""

    source: Artifact | None  # the checkout, or the templates of an image; None: the project's own models
    image: ServingImage
    downloads: tuple[Step, ...]
    steps: tuple[Step, ...]
    mounts: dict[
        str, str
    ]  # what the server reads beside the release itself: path on the host -> in the container


def recipe(settings: Settings, profile: Profile, stack: StackRelease, gpus: tuple[Gpu, ...]) -> Recipe:
    """How everything a profile needs is made, whatever its kind."""
    if isinstance(profile, PlanProfile):
        return _encoders(settings, profile, gpus)
    source, image = source_and_image(settings, profile, stack)
    downloaded = weights(settings, profile.weights, image)
    mounts = {downloaded.path: commands.WEIGHTS}
    download = Step("Download the weights", downloaded)
    if not isinstance(profile, EngineProfile):
        return Recipe(source, image, (download,), (), mounts)
    calibration = profile.checkpoint.quantization and profile.checkpoint.quantization.calibration
    calibrated = weights(settings, calibration, image) if calibration else None
    converted = checkpoint(settings, profile, stack, source, image, downloaded, calibrated)
    built = engine(settings, profile, stack, image, converted, gpus)
    extra = (Step("Download the calibration dataset", calibrated, unless=built),) if calibrated else ()
    steps = (
        Step("Convert the weights to a checkpoint", converted, unless=built),
        Step("Build the engine", built),
    )
    return Recipe(source, image, (download, *extra), steps, {built.path: commands.ENGINE, **mounts})


def _encoders(settings: Settings, profile: PlanProfile, gpus: tuple[Gpu, ...]) -> Recipe:
    """Two encoders, each downloaded, exported and built by itself."""
    image = _own_image(settings, profile)
    downloads: list[Step] = []
    steps: list[Step] = []
    mounts = {}
    for role, encoder in profile.encoders.items():
        downloaded = weights(settings, encoder.weights, image)
        exported = _onnx(settings, profile, encoder, image, downloaded)
        built = _plan(settings, profile, encoder, image, exported, gpus)
        downloads.append(Step(f"Download the {role} encoder's weights", downloaded))
        steps.append(Step(f"Export the {role} encoder to ONNX", exported, unless=built))
        steps.append(Step(f"Build the {role} encoder's plan", built))
        mounts[built.path] = f"{commands.RELEASE}/model_repository/clip_{role}/1"
        mounts[downloaded.path] = f"{commands.WEIGHTS}/{role}"
    return Recipe(None, image, tuple(downloads), tuple(steps), mounts)


def gpu_selection(settings: Settings) -> str:
    """What NVIDIA_VISIBLE_DEVICES says: the chosen GPUs by index, or all."""
    chosen = settings.gpu_ids
    return "all" if chosen == "all" else ",".join(str(index) for index in chosen)


def source_and_image(
    settings: Settings, profile: Profile, stack: StackRelease
) -> tuple[Artifact, ServingImage]:
    """Where the model repository's templates come from, and the serving image: each may be made from the other."""
    if profile.image.source == "pull":
        image = _pulled_image(settings, stack)
        if stack.version >= TEMPLATES_IN_IMAGE:
            return _source_in_image(settings, profile, image), image
        return _checkout(settings, profile, stack), image
    source = _checkout(settings, profile, stack)
    return source, _built_image(settings, profile, stack, source)


def _source_in_image(settings: Settings, profile: Profile, image: ServingImage) -> Artifact:
    """The templates as a pulled image carries them: what fits it best, and for the newest releases all there is."""
    roots = [f"{root}/{profile.templates}" for root in IMAGE_TEMPLATE_ROOTS]
    inputs = {"image": image.key, "templates": roots}
    place = Artifact("source", settings.data_root, inputs, ())
    copy = (
        'for root in "$@"; do if [ -d "$root" ]; then mkdir -p /output/tree && cp -R "$root" /output/tree/templates '
        '&& exit 0; fi; done; echo "no templates in the serving image, looked for: $*" >&2; exit 66'
    )
    step = commands.container(
        image.tag,
        ["sh", "-c", copy, "copy-templates", *roots],
        name=place.unit,
        mounts={partial_path(place.path): commands.OUTPUT},
    )
    # like a checkout, without a list of files: what is served of them is in the release, with its own
    return Artifact("source", settings.data_root, inputs, frozen([step]), checksums=False)


def _checkout(settings: Settings, profile: Profile, stack: StackRelease) -> Artifact:
    """The checkout of tensorrtllm_backend: what an image is built from, and the model repository's templates."""
    tag = stack.backend_tag
    if tag is None:
        raise PlanError(
            "image.release",
            stack.release,
            "a release with a tag of tensorrtllm_backend",
            "the newest with one is 25.10 (v1.0.0)",
        )
    commit = settings.backend_commits.get(tag) or BACKEND_COMMITS.get(tag)
    if commit is None:
        raise PlanError(
            f"backend_commits.{tag}",
            "nothing",
            "the tag's 40-hex commit",
            f"git ls-remote {BACKEND_URL} {tag}",
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


def _version_check(settings: Settings, name: str, image: str, version: str) -> list[str]:
    """Run the image once: what it holds is the truth, its tag and its release notes are not."""
    script = (
        "found=$(python3 -c 'import tensorrt_llm; print(tensorrt_llm.__version__)' | tail -n 1); "
        '[ "$found" = "$0" ] || { echo "TensorRT-LLM in the image: found $found, expected $0" >&2; exit 65; }'
    )
    return commands.container(image, ["sh", "-c", script, version], name=name, gpus=gpu_selection(settings))


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
    base = profile.image.base
    digest = settings.image_digests.get(base) if base else None
    inputs: Inputs = {"source": "build", "tree": source.key, "base": base, "base_digest": digest}
    draft = ServingImage(inputs, ())
    repository, tag = base.split(":") if base else ("nvidia/tritonserver", "")
    arguments = [f"--build-arg=BASE_IMAGE={settings.image_registry}/{repository}"]
    if tag:
        arguments.append(f"--build-arg=BASE_TAG={tag}{f'@{digest}' if digest else ''}")
    file = f"--file={source.path}/tree/dockerfile/Dockerfile.trt_llm_backend"

    def look(building: str) -> list[str]:
        return _version_check(settings, draft.unit, building, stack.tensorrt_llm)

    return ServingImage(inputs, _build_steps(draft, [*arguments, file], f"{source.path}/tree", look))


def _build_steps(
    draft: ServingImage, arguments: list[str], context: str, look: Callable[[str], list[str]]
) -> tuple[tuple[str, ...], ...]:
    """
    docker build, a look into what came out, and only then the tag that a release asks for.

    + look: tag -> the command that fails where the image is not what it should be
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
    base = profile.image.base or f"nvidia/tritonserver:{profile.image.release}-py3"
    reference = pinned(settings, settings.image_registry, base)
    context = {name: own_models.image_file(name) for name in ("Dockerfile", "requirements.txt")}
    inputs: Inputs = {"source": "build", "base": base, "base_digest": settings.image_digests[base]}
    inputs = {**inputs, "files": {name: digest(text) for name, text in context.items()}}
    draft = ServingImage(inputs, ())
    arguments = [f"--build-arg=BASE={reference}"]
    if url := settings.python_index_url:
        arguments.append(f"--build-arg=INDEX_URL={url}")
        if url.startswith("http://"):
            arguments.append(f"--build-arg=TRUSTED_HOST={urlsplit(url).hostname}")

    def look(building: str) -> list[str]:
        trtexec = commands.first_of(commands.TRTEXEC, (), interpreter="test -x ")
        return commands.container(building, trtexec, name=draft.unit)

    steps = _build_steps(draft, arguments, f"/run/tritonhost/{draft.unit}", look)
    return ServingImage(inputs, steps, files=context)


def pinned(settings: Settings, registry: str, image: str) -> str:
    """registry/name@digest. Raises PlanError where the inventory does not know the digest."""
    digest = settings.image_digests.get(image)
    if digest is None:
        raise PlanError(
            f"image_digests[{image!r}]",
            "nothing",
            "the image's sha256 digest",
            f"docker buildx imagetools inspect {registry}/{image}",
        )
    return f"{registry}/{image.split(':')[0]}@{digest}"


def database_image(settings: Settings, profile: PlanProfile) -> ServingImage:
    """PostgreSQL with pgvector, as its makers publish it."""
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
    kind = "dataset" if isinstance(wanted, Dataset) else "weights"
    inputs: dict[str, object] = {
        "repository": wanted.repository,
        "revision": wanted.revision,
        "include": list(wanted.include),
        "exclude": list(wanted.exclude),
        "allow_pickle": isinstance(wanted, Weights) and wanted.allow_pickle,
    }
    if isinstance(wanted, Weights) and wanted.code_revision:
        # said only where it is: another input would give every other download a new key
        inputs["code_revision"] = wanted.code_revision
    place = Artifact(kind, settings.data_root, inputs, ())
    request = {**inputs, "endpoint": settings.hub_endpoint, "type": kind}
    steps = [
        commands.container(
            image.tag,
            [
                "python3",
                f"{commands.WORK}/download_weights.py",
                f"{commands.WORK}/request.json",
                commands.OUTPUT,
            ],
            name=place.unit,
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
    if calibration and recipe.quantization and recipe.quantization.calibration:
        inputs["calibration"] = calibration.key
        mounts[calibration.path] = f"{commands.CALIBRATION}/{recipe.quantization.calibration.name}"
    if not comes_from(source, image):
        # Images before 0.17 have no examples of their own: their READMEs mount the clone under this name.
        mounts[f"{source.path}/tree"] = "/tensorrtllm_backend"
    return _made_in_image("checkpoint", settings, image, inputs, command, mounts, profile)


def comes_from(source: Artifact | None, image: ServingImage) -> bool:
    """Whether the templates were taken out of the image, and not checked out."""
    return source is not None and source.inputs.get("image") == image.key


def _onnx(
    settings: Settings, profile: PlanProfile, encoder: Encoder, image: ServingImage, weights: Artifact
) -> Artifact:
    """One encoder as an ONNX graph; for int8 quantized, with the profile's documents to calibrate it."""
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
    step = commands.container(
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
    encoder: Encoder,
    image: ServingImage,
    onnx: Artifact,
    gpus: tuple[Gpu, ...],
) -> Artifact:
    """One encoder's TensorRT plan, which fits one image and one model of GPU."""
    command = commands.trtexec(encoder)
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
        # An engine fits the GPU it was built on; the driver is not part of it.
        "gpu": gpus[0].name,
        "compute_capability": gpus[0].compute_capability,
        "tensor_parallel": profile.checkpoint.tensor_parallel,
        "pipeline_parallel": profile.checkpoint.pipeline_parallel,
        "command": command,
    }
    return _made_in_image(
        "engine", settings, image, inputs, command, {checkpoint.path: commands.CHECKPOINT}, profile
    )


def _made_in_image(
    kind: str,
    settings: Settings,
    image: ServingImage,
    inputs: Inputs,
    command: list[str],
    mounts: dict[str, str],
    profile: Profile,
) -> Artifact:
    """An artifact made by one command in the serving image, without network: versions cannot disagree."""
    place = Artifact(kind, settings.data_root, inputs, ())
    steps = [
        commands.container(
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
    return Artifact(kind, settings.data_root, inputs, frozen(steps))
