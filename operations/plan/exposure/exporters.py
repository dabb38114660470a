"""node_exporter and dcgm-exporter: the containers of a host's exporters, where they listen, and who may reach them there.

A host has one of each, whatever it serves: of several services the first runs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from operations.plan.artifacts.images import dcgm_exporter_image, node_exporter_image
from operations.plan.artifacts.keys import digest
from operations.plan.catalog.gpu_counters import counters
from operations.plan.errors import PlanError
from operations.plan.exposure.host_program import HostProgram, limits, script_path, unit_path
from operations.plan.inventory.monitoring_settings import DcgmExporter, Exporters, NodeExporter
from operations.plan.inventory.services import units_of
from operations.plan.inventory.settings import Settings

# unused, as the server's own 60600 and those up to the door's 60602
NODE_USER, DCGM_USER = 60603, 60604
NODE, DCGM = "node", "dcgm"
# where the containers find the host's files, and the list of counters
HOST, COUNTERS = "/host", "/etc/tritonhost/counters.csv"
# what docker or the kernel mounts, and no disk of the host; the last three are docker's own, in each container
_NO_DISKS = (
    "^/(dev|proc|sys|run|var/lib/docker/.+|var/lib/containers/.+|etc/(hosts|hostname|resolv[.]conf))($|/)"
)


@dataclass(frozen=True)
class Exporter(HostProgram):
    """
    One exporter.

    + kind: node or dcgm
    + counters: the text of its list of counters; empty: it has none. + counters_path: where that is on the host
    """

    kind: str = ""
    counters: str = ""
    counters_path: str = ""


def service(server: str, kind: str) -> str:
    """An exporter's unit and container, of the server's name."""
    return f"{server}-{kind}-exporter"


def counters_path(state_root: str) -> str:
    """Where the list of counters is on the host: with the label that containers may read."""
    return f"{state_root}/dcgm-counters.csv"


def own_paths(server: str, state_root: str, kind: str) -> tuple[str, ...]:
    """Every file of an exporter, whether the inventory wants it or not."""
    name = service(server, kind)
    further = (counters_path(state_root),) if kind == DCGM else ()
    return (unit_path(name), script_path(name), *further)


def wanted(settings: Settings) -> Exporters:
    """Those that this service runs for its host: of several services the first one."""
    units = list(units_of(settings.services).values())
    first = not units or units[0] == settings.service_name
    return settings.monitoring.exporters if settings.monitoring and first else Exporters()


def ports(settings: Settings) -> dict[str, int]:
    """The ports of those, by kind."""
    own = wanted(settings)
    return {kind: one.port for kind, one in ((NODE, own.node), (DCGM, own.dcgm)) if one}


def address(settings: Settings) -> str:
    """Where a host's exporters listen."""
    monitoring = settings.monitoring
    return monitoring.listens(settings.bind_address) if monitoring else settings.bind_address


def open_ports(settings: Settings) -> tuple[int, ...]:
    """Those of their ports that others than the host itself reach."""
    return () if IPv4Address(address(settings)).is_loopback else tuple(ports(settings).values())


def users(settings: Settings) -> tuple[int, ...]:
    """The users of their containers, which connect to nobody."""
    own = wanted(settings)
    node = (NODE_USER,) if own.node else ()
    # with profiling it is root, whom no rule can mean
    return (*node, DCGM_USER) if own.dcgm and not own.dcgm.profiling else node


def exporters(
    settings: Settings, gpus: int, selinux: bool, taken: tuple[int, ...] = ()
) -> tuple[Exporter, ...]:
    """
    The exporters of a host.

    + gpus: how many the service uses
    + selinux: whether docker confines containers
    + taken: the service's own ports

    Raises PlanError for a port of another, and for an image without a digest.
    """
    seen = dict.fromkeys(taken, "a port that neither a server, the gateway nor the door has")
    for kind, port in ports(settings).items():
        if port in seen:
            raise PlanError(
                f"monitoring.exporters.{kind}.port", port, seen[port], reference="exporter-port-taken"
            )
        seen[port] = "a port of its own for each exporter"
    return tuple(_planned(settings, gpus, selinux))


def _planned(settings: Settings, gpus: int, selinux: bool) -> Iterator[Exporter]:
    own = wanted(settings)
    if own.node:
        yield _node(settings, own.node, selinux)
    if own.dcgm:
        yield _dcgm(settings, own.dcgm, gpus)


def _node(settings: Settings, given: NodeExporter, selinux: bool) -> Exporter:
    """
    node_exporter sees the host's processes, network and mounts, as an account of the host without rights does.

    Its project describes this container: https://github.com/prometheus/node_exporter#docker
    """
    assert settings.monitoring
    image = node_exporter_image(settings, given.image)
    return Exporter(
        kind=NODE,
        title="node_exporter",
        service=service(settings.service_name, NODE),
        image=image,
        image_record=image.record(settings.data_root),
        data_root=settings.data_root,
        address=address(settings),
        port=given.port,
        arguments=(
            f"--path.rootfs={HOST}",
            f"--path.udev.data={HOST}/run/udev/data",
            f"--web.listen-address={address(settings)}:{given.port}",
            f"--collector.textfile.directory={HOST}{settings.monitoring.textfile_directory}",
            f"--collector.filesystem.mount-points-exclude={_NO_DISKS}",
            # some distributions have it on, and it would need the host's bus
            "--no-collector.systemd",
            "--log.level=warn",
        ),
        options=(
            *limits(NODE_USER, "256m", 256),
            *("--pid", "host", "--volume", f"/:{HOST}:ro,rslave"),
            # SELinux would let a container see neither the host's processes nor its files
            *(("--security-opt", "label=disable") if selinux else ()),
            *("--entrypoint", "/bin/node_exporter"),
        ),
        read={"counters": digest("")},
        shows={"node_uname_info": 1, "node_filesystem_avail_bytes": 1, "node_textfile_scrape_error": 1},
    )


def _dcgm(settings: Settings, given: DcgmExporter, gpus: int) -> Exporter:
    """
    dcgm-exporter sees all GPUs of the host.

    Without profiling it needs neither root nor a capability: docker/Dockerfile of https://github.com/NVIDIA/dcgm-exporter. Its
    entrypoint is left out: that of older images gives the program a file capability, which no-new-privileges forbids.
    """
    image = dcgm_exporter_image(settings, given.image)
    profiling = ("--cap-add", "SYS_ADMIN") if given.profiling else ()
    return Exporter(
        kind=DCGM,
        title="dcgm-exporter",
        service=service(settings.service_name, DCGM),
        image=image,
        image_record=image.record(settings.data_root),
        data_root=settings.data_root,
        address=address(settings),
        port=given.port,
        arguments=("--collectors", COUNTERS, "--address", f"{address(settings)}:{given.port}"),
        options=(
            *limits(0 if given.profiling else DCGM_USER, "1g", 1024),
            *profiling,
            *("--entrypoint", "/usr/bin/dcgm-exporter"),
        ),
        gpus="all",
        mounts={counters_path(settings.state_root): COUNTERS},
        read={"counters": digest(counters(given.profiling))},
        counters=counters(given.profiling),
        counters_path=counters_path(settings.state_root),
        shows={"DCGM_FI_DEV_GPU_TEMP": gpus},
    )
