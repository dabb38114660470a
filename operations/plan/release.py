"""plan_release: the one entry. Inventory data, a profile and the host's GPUs in; everything the stages need out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from operations.plan import commands, serve
from operations.plan.artifacts import Artifact, ServingImage, artifact_path, frozen, partial_path
from operations.plan.errors import PlanError
from operations.plan.gpu import Gpu
from operations.plan.keys import Inputs, canonical, key_of
from operations.plan.model_repository import check_parameters
from operations.plan.profiles import Profile, Value, load_profile
from operations.plan.settings import Settings
from operations.plan.sources import BACKEND_COMMITS, BACKEND_URL
from operations.plan.support_matrix import (
    IMAGE_TEMPLATE_ROOTS,
    TEMPLATES_IN_IMAGE,
    StackRelease,
    converter_candidates,
    quantizer_candidates,
    stack_release,
    template_root,
)

# TensorRT-LLM removed trtllm-build and the engine backend after 1.2.x; v1.3.0rc20 announced itself as the last with
# it: https://github.com/NVIDIA/TensorRT-LLM/releases/tag/v1.3.0rc20
LAST_ENGINE_VERSION = (1, 2)


@dataclass(frozen=True)
class Release:
    """Everything a host should be, fully resolved: nothing is decided after this."""

    settings: Settings
    profile: Profile
    stack: StackRelease
    os_major: str
    gpus: tuple[Gpu, ...]
    source: Artifact
    image: ServingImage
    weights: Artifact
    checkpoint: Artifact
    engine: Artifact
    ports: tuple[int, int, int]
    parameters: dict[str, Value]

    @property
    def image_first(self) -> bool:
        """Whether the templates come out of the image, and not the image out of the checkout."""
        return "image" in self.source.inputs

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """In the order they are made; the serving image comes after, or before, the first."""
        return (self.source, self.weights, self.checkpoint, self.engine)

    @property
    def models(self) -> list[str]:
        """The models of the repository."""
        return list(self.profile.repository.models)

    @property
    def address(self) -> str:
        """Where the host reaches its own server."""
        return local_address(self.settings)

    @property
    def ready_urls(self) -> dict[str, str]:
        """model -> where to ask whether it is ready."""
        return ready_urls(self.settings, self.profile)

    @property
    def data_root(self) -> str:
        """The directory that holds all artifacts."""
        return self.settings.data_root

    @property
    def path(self) -> str:
        """The release's own directory."""
        return artifact_path(self.data_root, "release", self.id)

    @property
    def partial(self) -> str:
        """Where it is laid out before it is complete."""
        return partial_path(self.path)

    @property
    def template_directory(self) -> str:
        """The checkout's templates of the model repository, on the host."""
        root = "templates" if self.image_first else template_root(self.stack.version)
        return f"{self.source.path}/tree/{root}"

    @cached_property
    def files(self) -> dict[str, str]:
        """The release's own files, but for the model repository and release.json: path -> content."""
        return {
            "serve": serve.serve_script(
                service=self.settings.service_name,
                container=commands.container(
                    self.image.tag,
                    commands.tritonserver(
                        ports=self.ports,
                        world_size=self.world_size,
                        load_models=self.profile.server.load_models,
                        arguments=[*self.profile.server.arguments, *self.settings.tritonserver_arguments],
                    ),
                    name=self.settings.service_name,
                    gpus=self.gpu_selection,
                    network="bridge",
                    mounts={
                        "$release": commands.RELEASE,
                        self.engine.path: commands.ENGINE,
                        self.weights.path: commands.WEIGHTS,
                    },
                    options=self._container_options(),
                    environment={"HF_HUB_OFFLINE": "1", **self.profile.server.environment},
                ),
                mounted=[self.engine.path, self.weights.path],
            ),
            "wait-ready": serve.wait_ready_script(
                service=self.settings.service_name,
                urls=list(self.ready_urls.values()),
                timeout_s=self.settings.start_timeout_s,
            ),
        }

    @property
    def world_size(self) -> int:
        """Ranks of the engine: one process and one GPU each."""
        return self.profile.checkpoint.tensor_parallel * self.profile.checkpoint.pipeline_parallel

    @property
    def gpu_selection(self) -> str:
        """What NVIDIA_VISIBLE_DEVICES says: the chosen GPUs by index, or all."""
        chosen = self.settings.gpu_ids
        return "all" if chosen == "all" else ",".join(str(index) for index in chosen)

    @cached_property
    def inputs(self) -> Inputs:
        """Every input of the release, each by its key: what release.json records and the release's id hashes."""
        return {
            "model": self.settings.model,
            "image": self.image.key,
            "source": self.source.key,
            "weights": self.weights.key,
            "engine": self.engine.key,
            "models": self.models,
            "parameters": self.parameters,
            "model_parameters": self.profile.repository.model_parameters,
            "files": self.files,
        }

    @cached_property
    def id(self) -> str:
        """The release's name."""
        return key_of({"kind": "release", **self.inputs})

    def document(self) -> dict[str, Any]:
        """release.json: what a person or an auditor asks of a release."""
        artifacts = {a.kind: {"key": a.key, "inputs": dict(a.inputs)} for a in self.artifacts}
        return {
            "release": self.id,
            "model": self.settings.model,
            "summary": self.profile.summary,
            "stack": {
                "release": self.stack.release,
                "triton": self.stack.triton,
                "tensorrt_llm": self.stack.tensorrt_llm,
                "tensorrt": self.stack.tensorrt,
                "cuda": self.stack.cuda,
            },
            "image": {"tag": self.image.tag, "inputs": dict(self.image.inputs)},
            "artifacts": artifacts,
            "parameters": {name: value for name, value in self.parameters.items()},
            "packages": {**self.settings.docker_packages, **self.settings.nvidia_container_toolkit_packages},
        }

    def _container_options(self) -> list[str]:
        server = self.profile.server
        # Published on one address of the host: inside its own network the container can reach, and be reached by,
        # nothing else.
        published = [f"--publish={self.settings.bind_address}:{port}:{port}" for port in self.ports]
        return [
            *published,
            "--shm-size",
            server.shm_size,
            "--ulimit",
            f"memlock={server.memlock}",
            "--ulimit",
            f"stack={server.stack_bytes}",
            "--label",
            f"tritonhost.release={serve.ID}",
            # The unit's journal is the log; the engine's own json-file log would grow without bound beside it.
            "--log-driver",
            "none",
            "--workdir",
            "/tmp",
        ]


def local_address(settings: Settings) -> str:
    """The address on which a host reaches its own server."""
    return "127.0.0.1" if settings.bind_address == "0.0.0.0" else settings.bind_address


def ready_urls(settings: Settings, profile: Profile) -> dict[str, str]:
    """
    Where the host asks its own server whether a model is ready, for each model that takes a person's request.

    The models are asked and not the server, whose own readiness stays 200 when an unload takes the ensemble down.
    """
    asked = [model for model in profile.repository.models if model in ("ensemble", "tensorrt_llm_bls")]
    port = settings.http_port or profile.server.http_port
    return {model: f"http://{local_address(settings)}:{port}/v2/models/{model}/ready" for model in asked}


def plan_release(
    settings: Settings, gpus: Sequence[Gpu], os_major: str = "9", profile: Profile | None = None
) -> Release:
    """
    Resolve everything a host should be.

    + settings: the host's inventory data
    + gpus: the GPUs nvidia-smi reports on it
    + os_major: its Oracle Linux major version
    + profile: the model's profile; None loads the one the settings name

    Pure: the same inputs give the same release. Raises PlanError, before anything is changed, for whatever cannot
    be deployed, naming the key, the value, what is allowed and what to do.
    """
    profile = profile or load_profile(settings.model, settings.profile_overrides)
    stack = stack_release(profile.image.release, "image.release")
    chosen = _chosen_gpus(settings, tuple(gpus))
    _check_engine_kind(stack)
    _check_parallelism(profile, chosen)
    parameters = _parameters(profile)
    ports = _ports(settings, profile)
    check_parameters(
        profile.repository.models, parameters, profile.repository.model_parameters, stack.version
    )

    source, image = _source_and_image(settings, profile, stack)
    weights = _weights(settings, profile, image)
    checkpoint = _checkpoint(settings, profile, stack, source, image, weights)
    engine = _engine(settings, profile, stack, image, checkpoint, chosen)
    return Release(
        settings=settings,
        profile=profile,
        stack=stack,
        os_major=os_major,
        gpus=chosen,
        source=source,
        image=image,
        weights=weights,
        checkpoint=checkpoint,
        engine=engine,
        ports=ports,
        parameters=parameters,
    )


def _chosen_gpus(settings: Settings, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    if not gpus:
        raise PlanError(
            "GPUs", "none", "at least one GPU that nvidia-smi reports", "check the shape and the driver"
        )
    if settings.gpu_ids == "all":
        chosen = gpus
    else:
        by_index = {gpu.index: gpu for gpu in gpus}
        missing = [index for index in settings.gpu_ids if index not in by_index]
        if missing:
            raise PlanError(
                "gpu_ids", missing, f"indices from 0 to {len(gpus) - 1} of this host's {len(gpus)} GPUs"
            )
        chosen = tuple(by_index[index] for index in settings.gpu_ids)
    kinds = {(gpu.name, gpu.compute_capability) for gpu in chosen}
    if len(kinds) > 1:
        names = ", ".join(sorted(name for name, _ in kinds))
        raise PlanError(
            "GPUs", names, "GPUs of one model", "choose them with gpu_ids: an engine fits one model only"
        )
    return chosen


def _check_engine_kind(stack: StackRelease) -> None:
    if stack.version[:2] > LAST_ENGINE_VERSION:
        raise PlanError(
            "image.release",
            f"{stack.release} (TensorRT-LLM {stack.tensorrt_llm})",
            "a release with TensorRT-LLM 1.2.x or older for a profile of kind engine",
            "TensorRT-LLM removed engines after 1.2",
        )


def _check_parallelism(profile: Profile, gpus: tuple[Gpu, ...]) -> None:
    world = profile.checkpoint.tensor_parallel * profile.checkpoint.pipeline_parallel
    if world > len(gpus):
        raise PlanError(
            "checkpoint.tensor_parallel x checkpoint.pipeline_parallel",
            world,
            f"at most {len(gpus)}, the number of this host's GPUs in use ({gpus[0].name})",
            "use a larger shape or a smaller tensor_parallel",
        )


def _parameters(profile: Profile) -> dict[str, Value]:
    # Paths inside the serving container: the same on every host, so that no host path enters a release.
    return {"engine_dir": commands.ENGINE, "tokenizer_dir": commands.WEIGHTS, **profile.repository.parameters}


def _ports(settings: Settings, profile: Profile) -> tuple[int, int, int]:
    server = profile.server
    ports = (
        settings.http_port or server.http_port,
        settings.grpc_port or server.grpc_port,
        settings.metrics_port or server.metrics_port,
    )
    if len(set(ports)) != 3:
        raise PlanError(
            "http_port, grpc_port, metrics_port", ", ".join(map(str, ports)), "three different ports"
        )
    return ports


def _source_and_image(
    settings: Settings, profile: Profile, stack: StackRelease
) -> tuple[Artifact, ServingImage]:
    """Where the model repository's templates come from, and the serving image: each may be made from the other."""
    if profile.image.source == "pull":
        image = _pulled_image(settings, stack)
        if stack.version >= TEMPLATES_IN_IMAGE:
            return _source_in_image(settings, image), image
        return _checkout(settings, profile, stack), image
    source = _checkout(settings, profile, stack)
    return source, _built_image(settings, profile, stack, source)


def _source_in_image(settings: Settings, image: ServingImage) -> Artifact:
    """The templates as a pulled image carries them: what fits it best, and for the newest releases all there is."""
    inputs = {"image": image.key, "templates": list(IMAGE_TEMPLATE_ROOTS)}
    place = Artifact("source", settings.data_root, inputs, ())
    copy = (
        'for root in "$@"; do if [ -d "$root" ]; then mkdir -p /output/tree && cp -R "$root" /output/tree/templates '
        '&& exit 0; fi; done; echo "no templates in the serving image, looked for: $*" >&2; exit 66'
    )
    step = commands.container(
        image.tag,
        ["sh", "-c", copy, "copy-templates", *IMAGE_TEMPLATE_ROOTS],
        name=place.unit,
        mounts={partial_path(place.path): commands.OUTPUT},
    )
    return Artifact("source", settings.data_root, inputs, frozen([step]))


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


def _version_check(name: str, image: str, version: str) -> list[str]:
    """Run the image once: what it holds is the truth, its tag and its release notes are not."""
    script = (
        "found=$(python3 -c 'import tensorrt_llm; print(tensorrt_llm.__version__)' | tail -n 1); "
        '[ "$found" = "$0" ] || { echo "TensorRT-LLM in the image: found $found, expected $0" >&2; exit 65; }'
    )
    return commands.container(image, ["sh", "-c", script, version], name=name, gpus="all")


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
        _version_check(draft.unit, reference, stack.tensorrt_llm),
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
        _version_check(draft.unit, building, stack.tensorrt_llm),
        # The tag a release asks for appears only on an image that was built to the end and looked into.
        ["docker", "tag", building, draft.tag],
        ["docker", "rmi", "--no-prune", building],
    ]
    return ServingImage(inputs, frozen(steps))


def _weights(settings: Settings, profile: Profile, image: ServingImage) -> Artifact:
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


def _checkpoint(
    settings: Settings,
    profile: Profile,
    stack: StackRelease,
    source: Artifact,
    image: ServingImage,
    weights: Artifact,
) -> Artifact:
    checkpoint = profile.checkpoint
    if checkpoint.quantization:
        command = commands.quantize(checkpoint, stack.tensorrt_llm, quantizer_candidates(stack.version))
    else:
        command = commands.convert(
            checkpoint, stack.tensorrt_llm, converter_candidates(checkpoint.family, stack.version)
        )
    inputs = {"weights": weights.key, "image": image.key, "source": source.key, "command": command[5:]}
    return _made_in_image(
        "checkpoint", settings, image, inputs, command, {weights.path: commands.WEIGHTS}, profile
    )


def _engine(
    settings: Settings,
    profile: Profile,
    stack: StackRelease,
    image: ServingImage,
    checkpoint: Artifact,
    gpus: tuple[Gpu, ...],
) -> Artifact:
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
    chosen = settings.gpu_ids
    steps = [
        commands.container(
            image.tag,
            command,
            name=place.unit,
            gpus="all" if chosen == "all" else ",".join(map(str, chosen)),
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
