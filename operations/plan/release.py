"""plan_release: the one entry. Inventory data, a profile and the host's GPUs in; everything the stages need out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from operations.plan import commands, network, own_models, packages, recipes, serve, server_flags
from operations.plan.artifacts import Artifact, ServingImage, Step, artifact_path, partial_path
from operations.plan.capacity import check_capacity
from operations.plan.documents import check_seed
from operations.plan.driver import driver_warnings
from operations.plan.errors import PlanError
from operations.plan.gateway import Gateway
from operations.plan.gateway import directory as gateway_directory
from operations.plan.gateway import service as gateway_service
from operations.plan.gpu import Gpu
from operations.plan.keys import Inputs, key_of
from operations.plan.model_repository import check_parameters
from operations.plan.profile_tables import Value
from operations.plan.profiles import EngineProfile, LlmApiProfile, PlanProfile, Profile, load_profile
from operations.plan.selinux import level
from operations.plan.settings import Settings
from operations.plan.support_matrix import StackRelease, stack_release, template_root

# TensorRT-LLM removed trtllm-build and the engine backend after 1.2.x; v1.3.0rc20 announced itself as the last with
# it: https://github.com/NVIDIA/TensorRT-LLM/releases/tag/v1.3.0rc20
LAST_ENGINE_VERSION = (1, 2)
# Triton's LLM-API model came with 0.19; the LLM API and its PyTorch backend are stable from 1.0 (release notes).
FIRST_LLMAPI_VERSION = (1, 0)


LOOPBACK = "127.0.0.1"
# Behind a front, the ports that people use are its own, and the servers' are this much higher, or twice that.
BEHIND_FRONT = 10000
# A GPU has a process with the server's and the engine's threads, and a Python process a model with libraries that start a thread a
# core, of which the largest shapes have 224: thousands. What runs away starts tens of thousands in a second.
PIDS_PER_GPU = 8192
# In memory, and counted only where it is used. Python environments and compiled kernels are run from it, so that it
# cannot be noexec.
TMP = "/tmp:rw,exec,nosuid,nodev,size=4g,mode=1777"


@dataclass(frozen=True)
class Server:
    """One place a release can run in. `service`: its unit and container; `link`: what names its release."""

    service: str
    link: str
    address: str
    ports: tuple[int, int, int]  # HTTP, gRPC, metrics

    @property
    def serve(self) -> str:
        """The release's file that runs it."""
        return "serve" if self.link == "current" else f"serve-{self.link}"

    @property
    def wait_ready(self) -> str:
        """The release's file that waits for it."""
        return "wait-ready" if self.link == "current" else f"wait-ready-{self.link}"


@dataclass(frozen=True)
class Database:
    """PostgreSQL with pgvector, in a container with a unit of its own; reached over a socket, never a port."""

    service: str  # its container and its unit
    image: ServingImage
    directory: str
    shm_size: str
    migrations: dict[int, str]
    seed: str  # JSON lines: the profile's own documents
    encoders: dict[str, str]  # output of the searching model -> what its vectors are stored under
    level: str = ""  # of SELinux, which its container shares with the server's; empty without SELinux

    @property
    def key(self) -> str:
        """What its container is made from: another one is started anew."""
        level = {"level": self.level} if self.level else {}
        return key_of(
            {"image": self.image.key, "directory": self.directory, "shm_size": self.shm_size, **level}
        )

    @property
    def socket(self) -> str:
        """The directory of its socket, on the host."""
        return f"{self.directory}/socket"


@dataclass(frozen=True)
class Release:
    """Everything a host should be, fully resolved: nothing is decided after this."""

    settings: Settings
    profile: Profile
    stack: StackRelease
    os_major: str
    gpus: tuple[Gpu, ...]
    recipe: recipes.Recipe
    database: Database | None
    ports: tuple[int, int, int]
    parameters: dict[str, Value]
    warnings: tuple[str, ...] = ()
    selinux: bool = False  # the host has it, and the inventory lets docker use it
    gateway: Gateway | None = None

    @property
    def source(self) -> Artifact | None:
        """Where the templates come from; None: from this project."""
        return self.recipe.source

    @property
    def image(self) -> ServingImage:
        """The serving image."""
        return self.recipe.image

    @property
    def image_first(self) -> bool:
        """Whether the templates come out of the image, and not the image out of the checkout."""
        return recipes.comes_from(self.source, self.image)

    @property
    def steps(self) -> tuple[Step, ...]:
        """Downloads, then what is made of them."""
        return (*self.recipe.downloads, *self.recipe.steps)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """In the order they are made; the serving image comes after, or before, the first."""
        source = (self.source,) if self.source else ()
        return (*source, *(step.artifact for step in self.steps))

    @property
    def named_artifacts(self) -> dict[str, Artifact]:
        """By kind; a second one of a kind is numbered: weights, weights-2."""
        named: dict[str, Artifact] = {}
        for made in self.artifacts:
            count = sum(1 for name in named if name.split("-")[0] == made.kind)
            named[f"{made.kind}-{count + 1}" if count else made.kind] = made
        return named

    def artifact(self, kind: str) -> Artifact:
        """The first artifact of a kind. Raises LookupError where the profile has none."""
        return next(a for a in self.artifacts if a.kind == kind)

    @property
    def images(self) -> tuple[ServingImage, ...]:
        """Every container image the host needs."""
        return (*self.own_images, self.gateway.image) if self.gateway else self.own_images

    @property
    def own_images(self) -> tuple[ServingImage, ...]:
        """Those that the release itself is run from: a gateway stands before any."""
        return (self.image, self.database.image) if self.database else (self.image,)

    @property
    def units(self) -> tuple[str, ...]:
        """The transient units of its making: what a run for it starts, or takes up where one was left on the host."""
        chosen = (packages.runtime_packages, packages.tool_packages, packages.growth_packages)
        sets = [versions(self.settings, self.os_major) for versions in chosen]
        installs = [packages.install(versions, ()) for versions in sets if versions]
        installs += [packages.removal(), *(packages.trust(*key) for key in packages.keys(self.settings))]
        return tuple(
            unit
            for works in (self.artifacts, self.images, installs)
            for unit in (work.unit for work in works)
        )

    @property
    def mounts(self) -> dict[str, str]:
        """What the server reads beside the release itself: path on the host -> path in the container."""
        return self.recipe.mounts

    @property
    def models(self) -> list[str]:
        """The models of the repository."""
        return self.profile.models

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
        """The templates of the model repository, on the host; empty where this project has them."""
        if self.source is None:
            return ""
        root = "templates" if self.image_first else template_root(self.stack.version, self.profile.templates)
        return f"{self.source.path}/tree/{root}"

    @property
    def docker_settings(self) -> dict[str, Any]:
        """What daemon.json has to say: the inventory's keys, and on a host with SELinux that containers are confined."""
        own = {"selinux-enabled": True} if self.selinux else {}
        return {**own, **self.settings.docker_daemon_settings}

    @property
    def guard(self) -> network.Guard:
        """Who may reach the server, and whom it may reach."""
        return network.guard(self.settings, self.ports)

    @property
    def fronted(self) -> bool:
        """Whether people reach the servers through a front."""
        return self.settings.front != "none"

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        """Where the release may run: in the place of the one that serves, and with a front also beside it."""
        return servers(self.settings, self.ports)

    @cached_property
    def files(self) -> dict[str, str]:
        """The release's own files, but for the model repository and release.json: path -> content."""
        files = {}
        for server in self.servers:
            files[server.serve] = self._serve_script(server)
            files[server.wait_ready] = serve.wait_ready_script(
                service=server.service,
                urls=[_ready_url(server.address, server.ports[0], m) for m in self.profile.asked_models],
                timeout_s=self.settings.start_timeout_s,
            )
        return files

    def _serve_script(self, server: Server) -> str:
        return serve.serve_script(
            service=server.service,
            container=commands.container(
                serve.IMAGE,
                commands.tritonserver(
                    ports=self.ports,
                    world_size=self.profile.ranks,
                    complete_configs=isinstance(self.profile, LlmApiProfile),
                    load_models=self.profile.server.load_models,
                    exposure=server_flags.exposure(
                        triton=self.stack.triton,
                        admin_apis=self.profile.server.admin_apis,
                        max_request_mib=self.profile.server.max_request_mib,
                        stop_timeout_s=self.settings.stop_timeout_s,
                        explicit=bool(self.profile.server.load_models),
                    ),
                    arguments=[*self.profile.server.arguments, *self.settings.tritonserver_arguments],
                ),
                name=server.service,
                gpus=recipes.gpu_selection(self.settings),
                network=network.network(self.settings.service_name),
                mounts={"$release": commands.RELEASE, **self.mounts},
                options=self._container_options(server),
                # whatever caches something does it under the one place that can be written
                environment={
                    "HF_HUB_OFFLINE": "1",
                    "HOME": "/tmp",
                    "USER": "triton-server",
                    **self.profile.server.environment,
                },
            ),
            mounted=list(self.mounts),
            image=(self.image.tag, self.image.record(self.data_root)),
            network=network.network(self.settings.service_name),
            bridge=network.bridge(self.settings.service_name),
        )

    @cached_property
    def inputs(self) -> Inputs:
        """Every input of the release, each by its key: what release.json records and the release's id hashes."""
        return {
            "model": self.settings.model,
            "image": self.image.key,
            "source": self.source.key if self.source else None,
            "mounts": self.mounts,
            "models": self.models,
            "parameters": self.parameters,
            "model_parameters": self.profile.model_parameters,
            "model_files": self.profile.model_files(commands.WEIGHTS),
            "files": self.files,
        }

    @cached_property
    def id(self) -> str:
        """The release's name."""
        return key_of({"kind": "release", **self.inputs})

    def document(self) -> dict[str, Any]:
        """release.json: what a person or an auditor asks of a release."""
        artifacts = {
            name: {"key": made.key, "inputs": dict(made.inputs)}
            for name, made in self.named_artifacts.items()
        }
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
            "images": {image.tag: dict(image.inputs) for image in self.own_images},
            "artifacts": artifacts,
            "parameters": dict(self.parameters),
            "packages": packages.wanted_packages(self.settings, self.os_major),
        }

    def _container_options(self, place: Server) -> list[str]:
        server = self.profile.server
        # Published on one address of the host, from a network of the container's own: no other port can be reached.
        bound = LOOPBACK if self.fronted else self.settings.server_bind_address
        published = [
            f"--publish={bound}:{outside}:{inside}"
            for outside, inside in zip(place.ports, self.ports, strict=True)
        ]
        # a socket directory, which docker must not make where it is missing
        socket = (
            ["--mount", f"type=bind,source={self.database.socket},target={commands.DATABASE},readonly"]
            if self.database
            else []
        )
        if self.database and self.database.level:
            socket += ["--security-opt", f"label=level:{self.database.level}"]
        # docker's resolver asks the host's name servers from the host's own network, past the guard, and a question can carry
        # data out; servers that were named here are asked from the container's (moby, TransformForIntNS in resolvconf.go).
        names = [] if self.settings.egress else ["--dns", LOOPBACK]
        return [
            *published,
            *names,
            *socket,
            "--user",
            self.settings.server_user,
            "--read-only",
            "--tmpfs",
            TMP,
            "--pids-limit",
            str(self.settings.pids_limit or PIDS_PER_GPU * self.profile.gpus_needed),
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
    return LOOPBACK if settings.server_bind_address == "0.0.0.0" else settings.server_bind_address


def servers(settings: Settings, ports: tuple[int, int, int]) -> tuple[Server, ...]:
    """Where a release may run on a host: the first is where it stays. `ports`: those that people use."""
    if settings.front == "none":
        return (Server(settings.service_name, "current", local_address(settings), ports),)
    current, beside = (
        (ports[0] + by, ports[1] + by, ports[2] + by) for by in (BEHIND_FRONT, 2 * BEHIND_FRONT)
    )
    return (
        Server(settings.service_name, "current", LOOPBACK, current),
        Server(f"{settings.service_name}-next", "next", LOOPBACK, beside),
    )


def _ready_url(address: str, port: int, model: str) -> str:
    return f"http://{address}:{port}/v2/models/{model}/ready"


def ready_urls(settings: Settings, profile: Profile) -> dict[str, str]:
    """
    Where the host asks its own server whether a model is ready, for each model that takes a person's request.

    The models are asked and not the server, whose own readiness stays 200 when an unload takes the ensemble down.
    With a front, it is asked: what counts is what people reach.
    """
    port = settings.http_port or profile.server.http_port
    return {model: _ready_url(local_address(settings), port, model) for model in profile.asked_models}


def plan_release(
    settings: Settings,
    gpus: Sequence[Gpu],
    os_major: str = "9",
    profile: Profile | None = None,
    selinux: bool = False,
) -> Release:
    """
    Resolve everything a host should be.

    + settings: the host's inventory data
    + gpus: the GPUs nvidia-smi reports on it
    + os_major: its Oracle Linux major version
    + profile: the model's profile; None loads the one the settings name
    + selinux: whether its kernel has SELinux, enforcing or permissive

    Pure: the same inputs give the same release. Raises PlanError, before anything is changed, for whatever cannot
    be deployed, naming the key, the value, what is allowed and what to do.
    """
    profile = profile or load_profile(settings.model, settings.profile_overrides)
    stack = stack_release(profile.image.release, "image.release")
    chosen = _chosen_gpus(settings, tuple(gpus))
    _check_kind(profile, stack)
    _check_parallelism(profile, chosen)
    parameters: dict[str, Value] = {}
    if isinstance(profile, EngineProfile):
        # Paths inside the serving container: the same on every host, so that no host path enters a release.
        paths = {"engine_dir": commands.ENGINE, "tokenizer_dir": commands.WEIGHTS}
        parameters = {**paths, **profile.repository.parameters}
        check_parameters(profile.models, parameters, profile.model_parameters, stack.version)

    ports = _ports(settings, profile)
    warnings = (*driver_warnings(chosen[0], stack.cuda), *check_capacity(profile, stack, chosen))
    return Release(
        settings=settings,
        profile=profile,
        stack=stack,
        os_major=os_major,
        gpus=chosen,
        recipe=recipes.recipe(settings, profile, stack, chosen),
        database=_database(settings, profile, selinux and settings.selinux == "auto"),
        ports=ports,
        parameters=parameters,
        warnings=warnings,
        selinux=selinux and settings.selinux == "auto",
        gateway=_gateway(settings, profile, ports),
    )


def _gateway(settings: Settings, profile: Profile, ports: tuple[int, int, int]) -> Gateway | None:
    if settings.gateway is None:
        return None
    taken = {port for server in servers(settings, ports) for port in server.ports} | set(ports)
    if settings.gateway.port in taken:
        raise PlanError(
            "gateway.port",
            settings.gateway.port,
            "a port that no server has",
            "move it, or http_port and its like",
        )
    image = recipes.gateway_image(settings, settings.gateway.image)
    return Gateway(
        service=gateway_service(settings.service_name),
        image=image,
        image_record=image.record(settings.data_root),
        directory=gateway_directory(settings.data_root),
        address=settings.bind_address,
        port=settings.gateway.port,
        behind=ports,
        max_request_mib=profile.server.max_request_mib,
        drain_s=settings.drain_s,
    )


def _database(settings: Settings, profile: Profile, selinux: bool) -> Database | None:
    if not isinstance(profile, PlanProfile):
        return None
    seed = own_models.documents(profile.documents.seed)
    check_seed(profile.documents.seed, seed, profile.golden)
    return Database(
        service=f"{settings.service_name}-database",
        image=recipes.database_image(settings, profile),
        directory=f"{settings.data_root}/database",
        shm_size=profile.documents.shm_size,
        migrations=own_models.migrations(),
        seed=seed,
        encoders={
            "image_embedding": profile.encoders["vision"].name,
            "text_embedding": profile.encoders["text"].name,
        },
        level=level(settings.service_name) if selinux else "",
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
    if partitioned := [gpu.index for gpu in chosen if gpu.mig]:
        raise PlanError(
            f"GPU {', '.join(map(str, partitioned))}",
            "MIG enabled",
            "GPUs that are not partitioned",
            "choose others with gpu_ids, or disable it: nvidia-smi -mig 0, and reboot",
        )
    kinds = {(gpu.name, gpu.compute_capability) for gpu in chosen}
    if len(kinds) > 1:
        names = ", ".join(sorted(name for name, _ in kinds))
        raise PlanError(
            "GPUs", names, "GPUs of one model", "choose them with gpu_ids: an engine fits one model only"
        )
    return chosen


def _check_kind(profile: Profile, stack: StackRelease) -> None:
    if isinstance(profile, EngineProfile) and stack.version[:2] > LAST_ENGINE_VERSION:
        raise PlanError(
            "image.release",
            f"{stack.release} (TensorRT-LLM {stack.tensorrt_llm})",
            "a release with TensorRT-LLM 1.2.x or older for a profile of kind engine",
            "TensorRT-LLM removed engines after 1.2: `python -m operations.plan migrate` writes the llmapi profile",
        )
    if isinstance(profile, LlmApiProfile) and stack.version < FIRST_LLMAPI_VERSION:
        raise PlanError(
            "image.release",
            f"{stack.release} (TensorRT-LLM {stack.tensorrt_llm})",
            "25.09 (TensorRT-LLM 1.0) or later for a profile of kind llmapi",
            "use a profile of kind engine",
        )


def _check_parallelism(profile: Profile, gpus: tuple[Gpu, ...]) -> None:
    if profile.gpus_needed > len(gpus):
        raise PlanError(
            "tensor parallel x pipeline parallel",
            profile.gpus_needed,
            f"at most {len(gpus)}, the number of this host's GPUs in use ({gpus[0].name})",
            "use a larger shape or a smaller tensor_parallel",
        )


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
    highest = 65535 - 2 * BEHIND_FRONT
    if settings.front != "none" and max(ports) > highest:
        raise PlanError(
            "http_port, grpc_port, metrics_port",
            ", ".join(map(str, ports)),
            f"ports up to {highest} with a front, whose servers use those {BEHIND_FRONT} and {2 * BEHIND_FRONT} higher",
        )
    return ports
