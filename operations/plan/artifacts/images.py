"""How the images are pulled, derived or built, and checked before anything runs in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from operations.plan.artifacts import commands
from operations.plan.artifacts.artifact import Artifact, ServingImage, frozen, partial_path
from operations.plan.artifacts.keys import Inputs, digest
from operations.plan.catalog.sources import BACKEND_COMMITS, BACKEND_URL, DOCKERFILE
from operations.plan.catalog.support_matrix import (
    IMAGE_TEMPLATE_ROOTS,
    TEMPLATES_IN_IMAGE,
    StackRelease,
    dockerfile_of,
)
from operations.plan.errors import PlanError
from operations.plan.inventory.settings import Settings
from operations.plan.profile import own_models
from operations.plan.profile.profiles import LlmApiProfile, PlanProfile, Profile, plain_image

DCGM_EXPORTER = "dcgm-exporter"


def check_images(settings: Settings, profile: Profile, stack: StackRelease) -> None:
    """Raises PlanError where an image has no digest, or a checkout no commit; no host need be known."""
    if isinstance(profile, PlanProfile):
        own_image(settings, profile)
        database_image(settings, profile)
    else:
        source_and_image(settings, profile, stack)


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


def own_image(settings: Settings, profile: PlanProfile) -> ServingImage:
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
    inputs: Inputs = {"base": base, "base_digest": settings.image_digests[base]}
    return _image_of_files(settings, reference, inputs, context, look)


def _image_of_files(
    settings: Settings,
    reference: str,
    inputs: Inputs,
    context: Mapping[str, str],
    look: Callable[[str, str], list[str]],
    name: str = "serving",
) -> ServingImage:
    """
    An image that a Dockerfile makes from another one, with Python packages of an index.

    + reference: the other image, registry/name@digest
    + context: the files that docker is given, the Dockerfile among them
    + look: name of a container, tag -> the command that fails if the image is wrong
    """
    files = {file: digest(text) for file, text in context.items()}
    inputs = {"source": "build", **inputs, "files": files}
    draft = ServingImage(inputs, (), name=name)
    arguments = [f"--build-arg=BASE={reference}"]
    if url := settings.python_index_url:
        arguments.append(f"--build-arg=INDEX_URL={url}")
        if url.startswith("http://"):
            arguments.append(f"--build-arg=TRUSTED_HOST={urlsplit(url).hostname}")
    place = f"/run/tritonhost/{draft.unit}"
    steps = _build_steps(draft, arguments, place, lambda building: look(draft.unit, building))
    return ServingImage(inputs, steps, files=context, name=name)


def pinned(settings: Settings, registry: str, image: str) -> str:
    """registry/name@digest. Raises PlanError if the inventory does not have the digest."""
    digest = settings.image_digests.get(image)
    if digest is None:
        raise PlanError(
            f"image_digests[{image!r}]",
            "nothing",
            "the image's sha256 digest",
            f"run tritonhost lock, which asks {registry} (in a checkout: python -m operations.lock_inventory INVENTORY)",
            reference="image-without-digest",
        )
    return f"{registry}/{image.split(':')[0]}@{digest}"


def database_image(settings: Settings, profile: PlanProfile) -> ServingImage:
    """PostgreSQL with pgvector, as its project publishes it."""
    return _from_docker_hub(settings, profile.documents.image, "database")


def gateway_image(settings: Settings, image: str) -> ServingImage:
    """nginx, as Docker publishes it."""
    return _from_docker_hub(settings, image, "gateway")


def node_exporter_image(settings: Settings, image: str) -> ServingImage:
    """node_exporter, as its project publishes it."""
    return _from_docker_hub(settings, image, "node-exporter")


def monitoring_image(settings: Settings, image: str, name: str) -> ServingImage:
    """Prometheus, Alertmanager or Grafana, as its project publishes it."""
    return _from_docker_hub(settings, image, name)


def dcgm_exporter_image(settings: Settings, image: str) -> ServingImage:
    """dcgm-exporter, as NVIDIA publishes it."""
    return _pulled(settings, settings.image_registry, image, DCGM_EXPORTER)


def registry_of(settings: Settings, image: ServingImage) -> str:
    """Where an image comes from, or what it is made from."""
    of_nvidia = image.name in ("serving", DCGM_EXPORTER)
    return settings.image_registry if of_nvidia else settings.docker_hub_registry


def door_image(settings: Settings, image: str) -> ServingImage:
    """Python with the packages that files/image/door names by hash, and the program beside them."""
    files = ("Dockerfile", "requirements.txt", *own_models.programs("door"))
    reference = pinned(settings, settings.docker_hub_registry, image)
    context = {name: own_models.image_file(name, "door") for name in files}

    def look(name: str, building: str) -> list[str]:
        return commands.worker(building, ["python3", "-c", "import door.app"], name=name)

    inputs: Inputs = {"base": image, "base_digest": settings.image_digests[image]}
    return _image_of_files(settings, reference, inputs, context, look, "door")


def _from_docker_hub(settings: Settings, image: str, name: str) -> ServingImage:
    return _pulled(settings, settings.docker_hub_registry, image, name)


def _pulled(settings: Settings, registry: str, image: str, name: str) -> ServingImage:
    reference = pinned(settings, registry, image)
    inputs: Inputs = {"source": "pull", "image": image, "digest": settings.image_digests[image]}
    draft = ServingImage(inputs, (), name=name)
    steps = [["docker", "pull", reference], ["docker", "tag", reference, draft.tag]]
    return ServingImage(inputs, frozen(steps), name=name)
