"""The release of a host, from its settings, its profile and its GPUs, or why there can be none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operations.plan.artifacts import commands, images, recipes
from operations.plan.capacity.described import check_rope, named_otherwise
from operations.plan.capacity.driver import driver_warnings
from operations.plan.capacity.fit import check_capacity
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.llm_arguments import check_names, one_part
from operations.plan.catalog.support_matrix import StackRelease
from operations.plan.catalog.values import Value
from operations.plan.errors import PlanError
from operations.plan.exposure.door import ONE_PART, Door
from operations.plan.exposure.door import door as plan_door
from operations.plan.exposure.exporters import Exporter, exporters
from operations.plan.exposure.exporters import ports as exporter_ports
from operations.plan.exposure.gateway import Gateway
from operations.plan.exposure.gateway import directory as gateway_directory
from operations.plan.exposure.gateway import service as gateway_service
from operations.plan.inventory import docker_settings
from operations.plan.inventory.settings import Settings
from operations.plan.machine.selinux import level
from operations.plan.profile import own_models
from operations.plan.profile.documents import check_seed
from operations.plan.profile.model_repository import check_parameters
from operations.plan.profile.profiles import (
    EngineProfile,
    LlmApiProfile,
    PlanProfile,
    Profile,
    load_profile,
    stack_of,
)
from operations.plan.profile.relations import check_relations
from operations.plan.release import Database, Release
from operations.plan.serving.servers import BEHIND_FRONT, servers

# TensorRT-LLM removed trtllm-build and the engine backend after 1.2.x; by its release notes v1.3.0rc20 is the last with
# them: https://github.com/NVIDIA/TensorRT-LLM/releases/tag/v1.3.0rc20
LAST_ENGINE_VERSION = (1, 2)
# Triton's LLM-API model came with 0.19; the LLM API and its PyTorch backend are stable from 1.0 (release notes).
FIRST_LLMAPI_VERSION = (1, 0)


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
    ports = triton_ports(settings, profile)
    warnings = (
        *(one_part(profile.decoupled, stack.version) if isinstance(profile, LlmApiProfile) else ()),
        *_of_streams(settings, profile, parameters),
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
        door=_door(settings, profile, ports),
        exporters=_exporters(settings, profile, len(chosen), selinux),
    )


def check_before_gpus(settings: Settings, profile: Profile) -> None:
    """
    What `plan_release` refuses of the inventory and the profile alone, before any host is asked for its GPUs.

    Raises PlanError.
    """
    stack = stack_of(profile)
    _check_kind(profile, stack)
    _gateway(settings, profile, triton_ports(settings, profile))
    _door(settings, profile, triton_ports(settings, profile))
    _exporters(settings, profile, 0, False)
    images.check_images(settings, profile, stack)


def _check_bench(settings: Settings, profile: Profile) -> None:
    """A model of vectors has no tokens to count. Raises PlanError."""
    if settings.bench_gate and isinstance(profile, PlanProfile):
        raise PlanError(
            "bench_gate",
            settings.bench_gate,
            "none for a profile of kind plan, which answers with vectors",
            "take it out of this host's table",
            reference="bench-of-vectors",
        )


def ports_of(settings: Settings, profile: Profile) -> tuple[int, ...]:
    """Every port of the host that a service uses: clients', and those of whatever else it runs. Raises PlanError."""
    return tuple(dict.fromkeys((*_serving_ports(settings, profile), *exporter_ports(settings).values())))


def _serving_ports(settings: Settings, profile: Profile) -> tuple[int, ...]:
    """Clients', those behind a proxy, the gateway's, the door's. Raises PlanError."""
    ports = triton_ports(settings, profile)
    behind = [port for server in servers(settings, ports) for port in server.ports]
    gateway = [settings.gateway.port] if settings.gateway else []
    door = [settings.door.port] if settings.door else []
    return tuple(dict.fromkeys((*ports, *behind, *gateway, *door)))


def _of_streams(settings: Settings, profile: Profile, parameters: Mapping[str, Value]) -> tuple[str, ...]:
    """The warning that a door's clients get whole answers alone. An LLM-API model has one of its own."""
    if settings.door is None or isinstance(profile, PlanProfile):
        return ()
    if isinstance(profile, LlmApiProfile):
        return () if profile.decoupled else ONE_PART["decoupled"]
    return (
        () if parameters.get("decoupled_mode") is True else ONE_PART["repository.parameters.decoupled_mode"]
    )


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
    image = images.gateway_image(settings, settings.gateway.image)
    return Gateway(
        service=gateway_service(settings.service_name),
        image=image,
        image_record=image.record(settings.data_root),
        directory=gateway_directory(settings.state_root),
        address=settings.bind_address,
        port=settings.gateway.port,
        behind=ports,
        max_request_mib=profile.server.max_request_mib,
        drain_s=settings.drain_s,
        door_port=settings.door.port if settings.door else 0,
        proxies=tuple(map(str, settings.gateway.proxies)),
    )


def _door(settings: Settings, profile: Profile, ports: tuple[int, int, int]) -> Door | None:
    if settings.door is None:
        return None
    _check_bench(settings, profile)
    return plan_door(settings, profile, ports, images.door_image(settings, settings.door.image))


def _exporters(settings: Settings, profile: Profile, gpus: int, selinux: bool) -> tuple[Exporter, ...]:
    confined = selinux and settings.selinux == "auto"
    return exporters(settings, gpus, confined, _serving_ports(settings, profile))


def _database(settings: Settings, profile: Profile, selinux: bool) -> Database | None:
    if not isinstance(profile, PlanProfile):
        return None
    seed = own_models.documents(profile.documents.seed)
    check_seed(profile.documents.seed, seed, profile.golden)
    return Database(
        service=f"{settings.service_name}-database",
        image=images.database_image(settings, profile),
        directory=f"{settings.state_root}/database",
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


def triton_ports(settings: Settings, profile: Profile) -> tuple[int, int, int]:
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
