"""plan_release turns inventory data, a profile and the host's GPUs into everything that the stages need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from operations.plan.artifacts import commands, images, recipes
from operations.plan.artifacts.artifact import Artifact, ServingImage, Step, artifact_path, partial_path
from operations.plan.artifacts.keys import Inputs, key_of
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.support_matrix import StackRelease, template_root
from operations.plan.catalog.values import Value
from operations.plan.exposure import network, server_flags
from operations.plan.exposure.door import Door
from operations.plan.exposure.exporters import Exporter
from operations.plan.exposure.gateway import Gateway
from operations.plan.inventory.settings import Settings
from operations.plan.machine import packages
from operations.plan.profile.model_repository import DEFAULTS
from operations.plan.profile.profiles import LlmApiProfile, Profile
from operations.plan.serving import serve
from operations.plan.serving.compile_cache import PLACE as CACHE
from operations.plan.serving.compile_cache import CompileCache, compile_cache
from operations.plan.serving.servers import LOOPBACK, Server, local_address, ready_url, ready_urls, servers

# Each GPU needs thousands: the server's and the engine's threads, and one Python process per model, whose libraries start
# one thread per core (up to 224 on the largest shapes). A runaway process starts tens of thousands in a second.
PIDS_PER_GPU = 8192
# In memory, of which only the used part counts. Python environments and compiled kernels run from it, so it cannot be
# noexec.
TMP_SIZE = "4g"
TMP = f"/tmp:rw,exec,nosuid,nodev,size={TMP_SIZE},mode=1777"


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
    door: Door | None = None
    exporters: tuple[Exporter, ...] = ()

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
        before = [each.image for each in (self.door, self.gateway, *self.exporters) if each]
        return (*self.own_images, *before)

    @property
    def own_images(self) -> tuple[ServingImage, ...]:
        """The images of the release itself: the gateway's, the door's and the exporters' are the same for all."""
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
        return network.guard(self.settings, self.ports, self.door)

    @property
    def fronted(self) -> bool:
        """Whether clients reach the servers through a proxy."""
        return self.settings.front != "none"

    @cached_property
    def servers(self) -> tuple[Server, ...]:
        """The servers that may run the release: the main server, and with a proxy also the second server."""
        return servers(self.settings, self.ports)

    @cached_property
    def cache(self) -> CompileCache | None:
        """What the server keeps from one start to the next; None: nothing."""
        if not isinstance(self.profile, LlmApiProfile):
            return None
        weights, gpu = self.artifact("weights").key, self.gpus[0].name
        return compile_cache(self.profile, self.settings, self.image.key, weights, gpu, self.stack.version)

    @cached_property
    def server_command(self) -> list[str]:
        """What runs in the server's container; `$key` stands for a key that each start makes."""
        leader, worker = self.rank_commands
        return commands.tritonserver(leader, worker, self.profile.ranks, self.profile.gpus_needed)

    @cached_property
    def rank_commands(self) -> tuple[list[str], list[str]]:
        """tritonserver of rank 0, and of each other rank of the engine."""
        server = self.profile.server
        return commands.of_ranks(
            ports=self.ports,
            complete_configs=isinstance(self.profile, LlmApiProfile),
            load_models=server.load_models,
            exposure=server_flags.exposure(
                triton=self.stack.triton,
                admin_apis=server.admin_apis,
                max_request_mib=server.max_request_mib,
                stop_timeout_s=self.settings.stop_timeout_s,
                explicit=bool(server.load_models),
            ),
            arguments=[*server.arguments, *self.settings.tritonserver_arguments],
        )

    @cached_property
    def server_environment(self) -> dict[str, str]:
        """Its environment: caches go to the one place that can be written."""
        return {
            "HF_HUB_OFFLINE": "1",
            "HOME": "/tmp",
            "USER": "triton-server",
            **(self.cache.environment if self.cache else {}),
            **self.profile.server.environment,
        }

    @cached_property
    def files(self) -> dict[str, str]:
        """The release's own files, except the model repository and release.json: path -> content."""
        files = {}
        for server in self.servers:
            files[server.serve] = self._serve_script(server)
            files[server.wait_ready] = serve.wait_ready_script(
                service=server.service,
                urls=[ready_url(server.address, server.ports[0], m) for m in self.profile.asked_models],
                timeout_s=self.settings.start_timeout_s,
            )
        return files

    def _serve_script(self, server: Server) -> str:
        return serve.serve_script(
            service=server.service,
            container=commands.container(
                serve.IMAGE,
                self.server_command,
                name=server.service,
                gpus=images.gpu_selection(self.settings),
                network=network.network(self.settings.service_name),
                mounts={"$release": commands.RELEASE, **self.mounts},
                options=self._container_options(server),
                environment=self.server_environment,
            ),
            mounted=list(self.mounts),
            image=(self.image.tag, self.image.record(self.data_root)),
            network=network.network(self.settings.service_name),
            bridge=network.bridge(self.settings.service_name),
            kept=(self.cache.path(self.data_root), self.settings.server_user) if self.cache else None,
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
            "service": self.settings.service_name,
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
            **({"cache": self.cache.key} if self.cache else {}),
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
        kept = (
            ["--mount", f"type=bind,source={self.cache.path(self.data_root)},target={CACHE}"]
            if self.cache
            else []
        )
        # docker's resolver queries the host's name servers from the host's own network, past the guard, and a query can carry data
        # out; servers named here are queried from the container's network (moby, TransformForIntNS in resolvconf.go).
        names = [] if self.settings.egress else ["--dns", LOOPBACK]
        return [
            *published,
            *names,
            *socket,
            *kept,
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
