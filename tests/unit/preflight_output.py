"""What files/host/preflight.sh prints on a host, as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from operations.plan.preflight import sources
from tests.unit.builders import profile, settings

SECTION = "\x1e"

# In the words of the real tool, of a driver of R580 (tests/lab/standins/captures); of an A10, which was not captured: no
# NVLink, no fabric, no MIG and no row remapping that waits.
GPU = """\t<gpu id="00000000:0{n}:00.0">
\t\t<product_name>{name}</product_name>
\t\t<persistence_mode>Enabled</persistence_mode>
\t\t<mig_mode><current_mig>{mig}</current_mig><pending_mig>{mig}</pending_mig></mig_mode>
\t\t<gpu_recovery_action>None</gpu_recovery_action>
\t\t<fb_memory_usage><total>{memory} MiB</total></fb_memory_usage>
\t\t<ecc_mode><current_ecc>Enabled</current_ecc><pending_ecc>Enabled</pending_ecc></ecc_mode>
\t\t<ecc_errors>
\t\t\t<volatile><sram_uncorrectable_parity>0</sram_uncorrectable_parity><dram_uncorrectable>0</dram_uncorrectable></volatile>
\t\t\t<aggregate><sram_uncorrectable_parity>0</sram_uncorrectable_parity><dram_uncorrectable>0</dram_uncorrectable></aggregate>
\t\t</ecc_errors>
\t\t<retired_pages><pending_retirement>N/A</pending_retirement></retired_pages>
\t\t<remapped_rows><remapped_row_pending>No</remapped_row_pending><remapped_row_failure>No</remapped_row_failure></remapped_rows>
\t\t<fabric><state>{fabric}</state><status>{status}</status></fabric>
\t</gpu>
"""


def nvidia_smi(
    count: int = 1,
    name: str = "NVIDIA A10",
    memory: int = 23028,
    mig: str = "N/A",
    fabric: str = "N/A",
    status: str = "N/A",
    driver: str = "580.95.05",
) -> list[str]:
    """`nvidia-smi -q -x` of some GPUs that are all alike."""
    gpus = "".join(
        GPU.format(n=n, name=name, memory=memory, mig=mig, fabric=fabric, status=status) for n in range(count)
    )
    head = (
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">\n<nvidia_smi_log>\n'
    )
    text = f"{head}\t<driver_version>{driver}</driver_version>\n\t<attached_gpus>{count}</attached_gpus>\n{gpus}</nvidia_smi_log>"
    return text.splitlines()


URLS = sources.sources(settings(), profile(), "9")
NAMES = sources.names(list(URLS.values()))

HEALTHY: Mapping[str, Sequence[str]] = {
    "os-release": ['NAME="Oracle Linux Server"', 'ID="ol"', 'VERSION_ID="9.6"', ""],
    "architecture": ["x86_64"],
    "kernel": [
        "running\t5.14.0-570.el9.x86_64",
        "next\t5.14.0-570.el9.x86_64",
        "driver\t/lib/modules/5.14.0-570.el9.x86_64/extra/nvidia.ko.xz",
    ],
    "kernel-fixes": [
        "read",
        *(f"fixed\t{name}" for name in ("CVE-2026-31431", "CVE-2026-43284", "CVE-2026-43500")),
    ],
    "xids": ["read"],
    "switches": [],
    "fabric-manager": [],
    "units": [
        *(
            "Id=nvidia-fabricmanager.service",
            "LoadState=not-found",
            "ActiveState=inactive",
            "UnitFileState=",
            "",
        ),
        *("Id=firewalld.service", "LoadState=loaded", "ActiveState=active", "UnitFileState=enabled"),
    ],
    "disks": [
        "docker\t/var/lib/docker",
        *(
            f"{path}\t1073741824000 966367641600 524288000 524000000 /"
            for path in ("/var/lib/tritonhost", "/var/lib/docker", "/tmp", "/")
        ),
    ],
    "memory": ["MemTotal\t251658240", "MemAvailable\t250000000", "SwapTotal\t0"],
    "listening": ['LISTEN 0      128    0.0.0.0:22   0.0.0.0:*    users:(("sshd",pid=900,fd=3))'],
    "locks": [],
    "cloud-init": ["status: done"],
    "selinux": ["Enforcing"],
    "container-selinux": ["2.235.0-2.el9"],
    "temporary": ["/ rw,relatime,seclabel", "/ rw,relatime,seclabel"],
    "umask": ["0022"],
    "ip-forward": ["0"],
    "user": ["0"],
    "proxies": [],
    "synchronized": ["yes"],
    "gpus": nvidia_smi(),
    "nvlink": ["GPU 0: NVIDIA A10 (UUID: GPU-0)"],
    "network": [
        *(f"name\t{name}\t192.0.2.7" for name in NAMES),
        'metadata\t0\t{"shape": "VM.GPU.A10.1", "region": "eu-frankfurt-1"}',
        *(f"source\t{url}\t0\tHTTP 200" for url in URLS.values()),
    ],
    "clock": ["1795269308.5"],
}
NOW = 1795269308.0


def lines(changed: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """A healthy OCI host with one A10, with these sections' lines instead."""
    found = []
    for name, content in {**HEALTHY, **(changed or {})}.items():
        found += [f"{SECTION}{name}", *content]
    return [*found, f"{SECTION}end"]
