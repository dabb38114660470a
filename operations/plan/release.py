"""plan_release turns inventory data, a profile and the host's GPUs into everything that the stages need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from operations.plan.artifacts import commands, recipes
from operations.plan.artifacts.artifact import Artifact, ServingImage, Step, artifact_path, partial_path
from operations.plan.artifacts.keys import Inputs, key_of
from operations.plan.capacity.driver import driver_warnings
from operations.plan.capacity.fit import check_capacity
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.llm_arguments import check_names
from operations.plan.catalog.support_matrix import StackRelease, template_root
from operations.plan.errors import PlanError
from operations.plan.exposure import network, server_flags
from operations.plan.exposure.gateway import Gateway
from operations.plan.exposure.gateway import directory as gateway_directory
from operations.plan.exposure.gateway import service as gateway_service
from operations.plan.inventory.settings import Settings
from operations.plan.machine import docker_settings, packages
from operations.plan.machine.selinux import level
from operations.plan.profile import own_models
from operations.plan.profile.described import check_rope, named_otherwise
from operations.plan.profile.documents import check_seed
from operations.plan.profile.model_repository import DEFAULTS, check_parameters
from operations.plan.profile.profiles import (
    EngineProfile,
    LlmApiProfile,
    PlanProfile,
    Profile,
    load_profile,
    stack_of,
)
from operations.plan.profile.relations import check_relations
from operations.plan.profile.tables import Value
from operations.plan.serving import serve

# TensorRT-LLM removed trtllm-build and the engine backend after 1.2.x; by its release notes v1.3.0rc20 is the last with
# them: https://github.com/NVIDIA/TensorRT-LLM/releases/tag/v1.3.0rc20
LAST_ENGINE_VERSION = (1, 2)
# Triton's LLM-API model came with 0.19; the LLM API and its PyTorch backend are stable from 1.0 (release notes).
FIRST_LLMAPI_VERSION = (1, 0)


LOOPBACK = "127.0.0.1"
# With a proxy, clients use the proxy's ports; the servers' ports are higher by this number, or by twice this number.
BEHIND_FRONT = 10000
# Each GPU needs thousands: the server's and the engine's threads, and one Python process per model, whose libraries start
# one thread per core (up to 224 on the largest shapes). A runaway process starts tens of thousands in a second.
PIDS_PER_GPU = 8192
# In memory, of which only the used part counts. Python environments and compiled kernels run from it, so it cannot be
# noexec.
TMP = "/tmp:rw,exec,nosuid,nodev,size=4g,mode=1777"


@dataclass(frozen=True)
class Server:
    """One server that can run a release. `service`: its unit and container; `link`: the link to its release."""

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
    encoders: dict[str, str]  # output of the search model -> the name of its vectors in the database
    level: str = (
        ""  # MCS level of SELinux, which its container shares with the server's; empty without SELinux
    )

    @property
    def key(self) -> str:
        """The hash of what its container is made from: with another key it is restarted."""
        level = {"level": self.level} if self.level else {}
        return key_of(
            {
                "image": self.image.key,
                "directory": self.directory,
                "shm_size": self.shm_size,
                "options": commands.DATABASE_OPTIONS,
                "hba": commands.HBA,
                **level,
            }
        )

    @property
    def socket(self) -> str:
        """The directory of its socket, on the host."""
        return f"{self.directory}/socket"


@dataclass(frozen=True)
class Release:
    """Everything that a host should be, fully resolved: nothing is decided after this."""

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
        """The source of the templates; None: this project."""
        return self.recipe.source

    @property
    def image(self) -> ServingImage:
        """The serving image."""
        return self.recipe.image

    @property
    def image_first(self) -> bool:
        """Whether the templates come from the image, instead of the image from the checkout."""
        return recipes.comes_from(self.source, self.image)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The downloads, then what is made from them."""
        return (*self.recipe.downloads, *self.recipe.steps)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """All artifacts in the order in which they are made; the serving image is made after, or before, the first."""
        source = (self.source,) if self.source else ()
        return (*source, *(step.artifact for step in self.steps))

    @property
    def descriptions(self) -> tuple[Artifact, ...]:
        """The hub's small files, read before the weights. Not part of the release, and removed like other unused artifacts."""
        return tuple(step.artifact for step in self.recipe.descriptions.values())

    @property
    def named_artifacts(self) -> dict[str, Artifact]:
        """By kind; a second one of a kind is numbered: weights, weights-2."""
        named: dict[str, Artifact] = {}
        for made in self.artifacts:
            count = sum(1 for name in named if name.split("-")[0] == made.kind)
            named[f"{made.kind}-{count + 1}" if count else made.kind] = made
        return named

    def artifact(self, kind: str) -> Artifact:
        """The first artifact of a kind. Raises LookupError if the profile has none."""
        return next(a for a in self.artifacts if a.kind == kind)

    @property
    def images(self) -> tuple[ServingImage, ...]:
        """Every container image that the host needs."""
        return (*self.own_images, self.gateway.image) if self.gateway else self.own_images

    @property
    def own_images(self) -> tuple[ServingImage, ...]:
        """The images of the release itself: the gateway's is the same for all releases."""
        return (self.image, self.database.image) if self.database else (self.image,)

    @property
    def units(self) -> tuple[str, ...]:
        """The transient units that make it: a run starts them, or adopts those that still run on the host."""
        chosen = (packages.runtime_packages, packages.tool_packages, packages.growth_packages)
        sets = [versions(self.settings, self.os_major) for versions in chosen]
        installs = [packages.install(versions, ()) for versions in sets if versions]
        installs += [packages.removal(), *(packages.trust(*key) for key in packages.keys(self.settings))]
        return tuple(
            unit
            for works in (self.artifacts, self.descriptions, self.images, installs)
            for unit in (work.unit for work in works)
        )

    @property
    def mounts(self) -> dict[str, str]:
        """What the server reads in addition to the release: path on the host -> path in the container."""
        return self.recipe.mounts

    @property
    def models(self) -> list[str]:
        """The models of the repository."""
        return self.profile.models

    @property
    def address(self) -> str:
        """The address at which the host reaches its own server."""
        return local_address(self.settings)

    @property
    def ready_urls(self) -> dict[str, str]:
        """model -> the URL that says whether it is ready."""
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
        """The directory in which it is written before it is complete."""
        return partial_path(self.path)

    @property
    def template_directory(self) -> str:
        """The directory of the model repository's templates on the host; empty if they are this project's."""
        if self.source is None:
            return ""
        root = "templates" if self.image_first else template_root(self.stack.version, self.profile.templates)
        return f"{self.source.path}/tree/{root}"

    @property
    def docker_settings(self) -> dict[str, Any]:
        """What daemon.json must have: the inventory's keys, and on a host with SELinux the switch that confines containers."""
        own = {"selinux-enabled": True} if self.selinux else {}
        return {**own, **self.settings.docker_daemon_settings}

    @property
    def guard(self) -> network.Guard:
        """Who may reach the server, and what it may reach."""
        return network.guard(self.settings, self.ports)

    @property
    def fronted(self) -> bool:
        """Whether clients reach the servers through a proxy."""
        return self.settings.front != "none"

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        """The servers that may run the release: the main server, and with a proxy also the second server."""
        return servers(self.settings, self.ports)

    @cached_property
    def files(self) -> dict[str, str]:
        """The release's own files, except the model repository and release.json: path -> content."""
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
                # caches go to the one place that can be written
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
            # including the defaults of the templates: another default is another release
            "parameters": {**DEFAULTS, **self.parameters} if self.parameters else {},
            "model_parameters": self.profile.model_parameters,
            "model_files": self.profile.model_files(commands.WEIGHTS),
            "files": self.files,
        }

    @cached_property
    def id(self) -> str:
        """The release's name."""
        return key_of({"kind": "release", **self.inputs})

    def document(self) -> dict[str, Any]:
        """release.json: what operators and auditors need to know of a release."""
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
                "triton_release": self.stack.triton_release,
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
        # Published on one address of the host, from the container's own network: no other port can be reached.
        bound = LOOPBACK if self.fronted else self.settings.server_bind_address
        published = [
            f"--publish={bound}:{outside}:{inside}"
            for outside, inside in zip(place.ports, self.ports, strict=True)
        ]
        # a socket directory, which docker must not create if it is missing
        socket = (
            ["--mount", f"type=bind,source={self.database.socket},target={commands.DATABASE},readonly"]
            if self.database
            else []
        )
        if self.database and self.database.level:
            socket += ["--security-opt", f"label=level:{self.database.level}"]
        # docker's resolver queries the host's name servers from the host's own network, past the guard, and a query can carry data
        # out; servers named here are queried from the container's network (moby, TransformForIntNS in resolvconf.go).
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
    """The address at which a host reaches its own server."""
    return LOOPBACK if settings.server_bind_address == "0.0.0.0" else settings.server_bind_address


def servers(settings: Settings, ports: tuple[int, int, int]) -> tuple[Server, ...]:
    """The servers of a host that may run a release: the main server first. `ports`: those for clients."""
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
    For each model that takes clients' requests, the URL at which the host checks whether it is ready.

    The models are checked, not the server, whose own readiness stays 200 when an unload takes the ensemble down.
    With a proxy, the check goes through it: what counts is what clients reach.
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
    Resolve everything that a host should be.

    + settings: the host's inventory data
    + gpus: the GPUs that nvidia-smi reports on it
    + os_major: its Oracle Linux major version
    + profile: the model's profile; None loads the one that the settings name
    + selinux: whether its kernel has SELinux, enforcing or permissive

    Pure: the same inputs give the same release. Raises PlanError, before anything is changed, if something cannot be
    deployed; it names the key, the value, what is allowed and what to do.
    """
    profile = profile or load_profile(settings.model, settings.profile_overrides)
    stack = stack_of(profile)
    chosen = _chosen_gpus(settings, tuple(gpus))
    _check_kind(profile, stack)
    _check_parallelism(profile, chosen)
    parameters: dict[str, Value] = {}
    if isinstance(profile, EngineProfile):
        # Paths inside the serving container are the same on every host, so that no host path enters a release.
        paths = {"engine_dir": commands.ENGINE, "tokenizer_dir": commands.WEIGHTS}
        parameters = {**paths, **profile.repository.parameters}
        repository = profile.repository
        check_parameters(
            profile.models, parameters, profile.model_parameters, stack.version, repository.unlisted
        )

    if isinstance(profile, LlmApiProfile):
        check_names(profile.llm, stack.version, stack.release, profile.llm_unlisted)
    ports = _ports(settings, profile)
    warnings = (
        *driver_warnings(chosen[0], stack.cuda),
        *docker_settings.unknown(settings.docker_daemon_settings),
        *check_relations(profile, stack.version),
        *_of_the_model(profile, stack, chosen),
    )
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


def check_before_gpus(settings: Settings, profile: Profile) -> None:
    """
    What `plan_release` refuses of the inventory and the profile alone, before any host is asked for its GPUs.

    Raises PlanError.
    """
    stack = stack_of(profile)
    _check_kind(profile, stack)
    _gateway(settings, profile, _ports(settings, profile))
    recipes.check_images(settings, profile, stack)


def _of_the_model(profile: Profile, stack: StackRelease, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Whether the model runs on these GPUs, as far as the profile alone can tell. Returns warnings."""
    warnings = check_capacity(profile, stack, gpus)
    if isinstance(profile, PlanProfile):
        return warnings
    if isinstance(profile, EngineProfile):
        warnings = (*warnings, *named_otherwise(profile))
    if profile.architecture is None:
        return (
            *warnings,
            "not forecast: the profile has no [architecture]; the hub's config.json is read before the weights are downloaded",
        )
    if isinstance(profile, EngineProfile):
        check_rope(profile.architecture.rope_type, stack, "architecture.rope_type")
    return warnings


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
            reference="gateway-port-taken",
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
            "GPUs",
            "none",
            "at least one GPU that nvidia-smi reports",
            "check the shape and the driver",
            reference="no-gpus",
        )
    if settings.gpu_ids == "all":
        chosen = gpus
    else:
        by_index = {gpu.index: gpu for gpu in gpus}
        missing = [index for index in settings.gpu_ids if index not in by_index]
        if missing:
            raise PlanError(
                "gpu_ids",
                missing,
                f"indices from 0 to {len(gpus) - 1} of this host's {len(gpus)} GPUs",
                reference="no-such-gpu",
            )
        chosen = tuple(by_index[index] for index in settings.gpu_ids)
    if partitioned := [gpu.index for gpu in chosen if gpu.mig]:
        raise PlanError(
            f"GPU {', '.join(map(str, partitioned))}",
            "MIG enabled",
            "GPUs that are not partitioned",
            "choose others with gpu_ids, or disable it: nvidia-smi -mig 0, and reboot",
            reference="gpu-mig-enabled",
        )
    kinds = {(gpu.name, gpu.compute_capability) for gpu in chosen}
    if len(kinds) > 1:
        names = ", ".join(sorted(name for name, _ in kinds))
        raise PlanError(
            "GPUs",
            names,
            "GPUs of one model",
            "choose them with gpu_ids: an engine fits one model only",
            reference="gpus-of-several-models",
        )
    return chosen


def _check_kind(profile: Profile, stack: StackRelease) -> None:
    if isinstance(profile, EngineProfile) and stack.version[:2] > LAST_ENGINE_VERSION:
        raise PlanError(
            "image.release",
            f"{stack.release} (TensorRT-LLM {stack.tensorrt_llm})",
            "a release with TensorRT-LLM 1.2.x or older for a profile of kind engine",
            "TensorRT-LLM removed engines after 1.2: `python -m operations.plan migrate` writes the llmapi profile",
            reference="engines-removed",
        )
    if isinstance(profile, LlmApiProfile) and stack.version < FIRST_LLMAPI_VERSION:
        raise PlanError(
            "image.release",
            f"{stack.release} (TensorRT-LLM {stack.tensorrt_llm})",
            "25.09 (TensorRT-LLM 1.0) or later for a profile of kind llmapi",
            "use a profile of kind engine",
            reference="release-before-llmapi",
        )


def _check_parallelism(profile: Profile, gpus: tuple[Gpu, ...]) -> None:
    if profile.gpus_needed > len(gpus):
        raise PlanError(
            "tensor parallel x pipeline parallel",
            profile.gpus_needed,
            f"at most {len(gpus)}, the number of this host's GPUs in use ({gpus[0].name})",
            "use a larger shape or a smaller tensor_parallel",
            reference="too-few-gpus",
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
            "http_port, grpc_port, metrics_port",
            ", ".join(map(str, ports)),
            "three different ports",
            reference="ports-not-different",
        )
    highest = 65535 - 2 * BEHIND_FRONT
    if settings.front != "none" and max(ports) > highest:
        raise PlanError(
            "http_port, grpc_port, metrics_port",
            ", ".join(map(str, ports)),
            f"ports up to {highest} with a front, whose servers use those {BEHIND_FRONT} and {2 * BEHIND_FRONT} higher",
            reference="ports-too-high-for-front",
        )
    return ports
