"""How each artifact of a release is made: inputs and commands, for every kind of profile."""

from __future__ import annotations

from operations.plan import commands
from operations.plan.artifacts import Artifact, ServingImage, frozen, partial_path
from operations.plan.errors import PlanError
from operations.plan.gpu import Gpu
from operations.plan.keys import Inputs, canonical
from operations.plan.profiles import EngineProfile, Profile
from operations.plan.settings import Settings
from operations.plan.sources import BACKEND_COMMITS, BACKEND_URL
from operations.plan.support_matrix import (
    IMAGE_TEMPLATE_ROOTS,
    TEMPLATES_IN_IMAGE,
    StackRelease,
    converter_candidates,
    quantizer_candidates,
)


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
    digest = settings.image_digests.get(stack.image)
    if digest is None:
        raise PlanError(
            f"image_digests[{stack.image!r}]",
            "nothing",
            "the image's sha256 digest",
            f"docker buildx imagetools inspect nvcr.io/{stack.image}",
        )
    reference = f"{settings.image_registry}/{stack.image.split(':')[0]}@{digest}"
    inputs: Inputs = {"source": "pull", "image": stack.image, "digest": digest}
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
    building = f"{draft.tag}-building"
    steps = [
        [
            "env",
            "DOCKER_BUILDKIT=1",
            "docker",
            "build",
            "--progress=plain",
            "--network=host",
            *arguments,
            f"--file={source.path}/tree/dockerfile/Dockerfile.trt_llm_backend",
            f"--tag={building}",
            f"--label=tritonhost.image={draft.key}",
            f"{source.path}/tree",
        ],
        _version_check(settings, draft.unit, building, stack.tensorrt_llm),
        # The tag a release asks for appears only on an image that was built to the end and looked into.
        ["docker", "tag", building, draft.tag],
        ["docker", "rmi", "--no-prune", building],
    ]
    return ServingImage(inputs, frozen(steps))


def weights(settings: Settings, profile: Profile, image: ServingImage) -> Artifact:
    """One revision of a Hugging Face repository, downloaded and verified inside the serving image."""
    weights = profile.weights
    inputs = {
        "repository": weights.repository,
        "revision": weights.revision,
        "include": list(weights.include),
        "exclude": list(weights.exclude),
        "allow_pickle": weights.allow_pickle,
    }
    place = Artifact("weights", settings.data_root, inputs, ())
    run_directory = f"/run/tritonhost/{place.unit}"
    request = {**inputs, "endpoint": settings.hub_endpoint}
    steps = [
        commands.container(
            image.tag,
            [
                "python3",
                "/run/tritonhost/download_weights.py",
                "/run/tritonhost/request.json",
                commands.OUTPUT,
            ],
            name=place.unit,
            network="host",
            mounts={run_directory: "/run/tritonhost", partial_path(place.path): commands.OUTPUT},
        )
    ]
    return Artifact(
        "weights",
        settings.data_root,
        inputs,
        frozen(steps),
        resumable=True,
        needs_token=weights.gated,
        files={"request.json": canonical(request), "download_weights.py": "@files/image/download_weights.py"},
    )


def checkpoint(
    settings: Settings,
    profile: EngineProfile,
    stack: StackRelease,
    source: Artifact,
    image: ServingImage,
    weights: Artifact,
) -> Artifact:
    """Converted or quantized weights, in TensorRT-LLM's own format."""
    recipe = profile.checkpoint
    if recipe.quantization:
        command = commands.quantize(recipe, stack.tensorrt_llm, quantizer_candidates(stack.version))
    else:
        command = commands.convert(
            recipe, stack.tensorrt_llm, converter_candidates(recipe.family, stack.version)
        )
    inputs = {"weights": weights.key, "image": image.key, "source": source.key, "command": command[5:]}
    mounts = {weights.path: commands.WEIGHTS}
    if not comes_from(source, image):
        # Images before 0.17 have no examples of their own: their READMEs mount the clone under this name.
        mounts[f"{source.path}/tree"] = "/tensorrtllm_backend"
    return _made_in_image("checkpoint", settings, image, inputs, command, mounts, profile)


def comes_from(source: Artifact, image: ServingImage) -> bool:
    """Whether the templates were taken out of the image, and not checked out."""
    return source.inputs.get("image") == image.key


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
