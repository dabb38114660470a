"""What operations.currency compares: the tables as they were in early November 2026, and small pages in the publishers' formats."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from operations.currency import tables
from operations.plan.audit.currency import Tables
from operations.plan.catalog.support_matrix import RELEASES
from operations.plan.catalog.version_floors import Component, Floor

TODAY = date(2026, 11, 29)
NEW = tables()


def _floor(component: Component, minimum: str, bulletin: str, branch: str = "") -> Floor:
    return Floor(component, minimum, bulletin, "2026-08-18", "CVE-", branch)


# The floors, pins and shapes before they were brought up to date
OLD = Tables(
    releases=RELEASES,
    floors=(
        _floor("triton", "26.06", "NVIDIA 5865"),
        _floor("tensorrt-llm", "1.2.1", "NVIDIA 5805"),
        _floor("tensorrt-llm", "1.3.0rc17", "NVIDIA 5840"),
        _floor("nvidia-container-toolkit", "1.19.1", "NVIDIA 5850"),
        *(
            _floor("driver", v, "NVIDIA 5821", v.split(".")[0])
            for v in ("535.309.01", "580.159.03", "595.71.05")
        ),
    ),
    packages={
        "docker": {
            "docker-ce": "3:28.5.2-1.el{os_major}",
            "docker-ce-cli": "1:28.5.2-1.el{os_major}",
            "containerd.io": "1.7.29-1.el{os_major}",
            "docker-buildx-plugin": "0.29.1-1.el{os_major}",
        },
        "toolkit": dict.fromkeys(
            (
                "nvidia-container-toolkit",
                "nvidia-container-toolkit-base",
                "libnvidia-container-tools",
                "libnvidia-container1",
            ),
            "1.19.1-1",
        ),
    },
    shapes=[name for name in NEW.shapes if name not in ("BM.GPU.B300.8", "BM.GPU.B4.8", "BM.GPU.RTXPRO.8")],
    branches={},
)

# number -> day, and of each version that is fixed: platform, product, affected, fixed
BULLETINS: dict[str, tuple[str, list[tuple[str, str, str, str]]]] = {
    # of branches that later bulletins leave out
    "5747": (
        "2026-01-28",
        [
            ("Linux(R570)", "Tesla", "All driver versions prior to 570.211.01", "570.211.01"),
            ("Linux(R590)", "Tesla", "All driver versions prior to 590.48.01", "590.48.01"),
        ],
    ),
    "5805": ("2026-05-19", [("All", "TensorRT-LLM", "All versions prior to v1.2.1", "v1.2.1")]),
    "5816": (
        "2026-01-20",
        [("All", "Triton Inference Server", "All versions prior to r26.02", "r26.02")],
    ),
    "5821": (
        "2026-05-21",
        [
            *(
                (f"Linux(R{v[:3]})", "Tesla", f"All driver versions prior to {v}", v)
                for v in ("535.309.01", "580.159.03", "595.71.05")
            ),
            ("Windows(R595)", "Tesla", "All driver versions prior to 596.36", "596.36"),
        ],
    ),
    "5840": ("2026-07-14", [("All", "TensorRT-LLM", "0.0 to v1.3.0 rc16", "v1.3.0 rc17")]),
    "5850": (
        "2026-06-30",
        [("Linux", "NVIDIA Container Toolkit", "All versions up to and including 1.19.0", "1.19.1")],
    ),
    "5855": ("2026-07-14", [("All", "TensorRT", "v0 - v10.16.1", "v11.0")]),
    "5861": (
        "2026-09-30",
        [
            *(
                (f"Linux(R{v[:3]})", "GeForce", f"All driver versions prior to {v}", v)
                for v in ("580.178.04", "595.91.07", "610.57.04")
            ),
            ("Windows(R615)", "GeForce", "All driver versions prior to 616.56", "616.56"),
            (
                "Linux(R580 vGPU 19)",
                "Guest driver",
                "580.159.03(All versions prior to and including vGPU 19.5)",
                "580.178.04(vGPU 19.6)",
            ),
        ],
    ),
    "5865": ("2026-08-18", [("Linux", "Triton Inference Server", "0.0-26.05", "26.06")]),
    "5875": ("2026-09-08", [("Linux", "Triton Inference Server", "0.0-26.06", "26.07")]),
    # of one candidate alone, which no image holds
    "5883": ("2026-10-27", [("All", "TensorRT-LLM", "v1.3.0 rc24", "v1.3.0 rc25")]),
}


def bulletin(number: str) -> dict[str, Any]:
    """One bulletin, as CSAF 2.0 has it."""
    day, rows = BULLETINS[number]
    branches: list[dict[str, Any]] = []
    vulnerabilities = []
    for at, (platform, product, affected, fixed) in enumerate(rows):
        ids = [f"{at}-affected", f"{at}-fixed"]
        versions = [
            {"category": "product_version", "name": product, "product": {"name": text, "product_id": name}}
            for name, text in zip(ids, (affected, fixed), strict=True)
        ]
        branches.append({"category": "architecture", "name": platform, "branches": versions})
        status = {"fixed": [ids[1]], "known_affected": [ids[0]]}
        vulnerabilities.append({"cve": f"CVE-2026-{number}{at}", "product_status": status})
    return {
        "document": {"tracking": {"id": number, "current_release_date": f"{day}T00:00:00Z"}},
        "product_tree": {"branches": [{"category": "vendor", "name": "NVIDIA", "branches": branches}]},
        "vulnerabilities": vulnerabilities,
    }


def index() -> str:
    """CVE_index.csv."""
    lines = ["CVE;CVSS;Severity;Vector;CWE;Bulletin;Affected Product;Affected Version;Fixed In"]
    lines += [
        f"CVE-2026-1;7.8;HIGH;CVSS:3.1;CWE-1;{number};{product};{affected};{fixed}"
        for number, (_, rows) in BULLETINS.items()
        for _, product, affected, fixed in rows
    ]
    return "\n".join([*lines, "CVE-2026-2;9.0;CRITICAL;x;CWE-1;5815;VIRTIO-Net LTS25;all;25.10.2", ""])


def compatibility() -> str:
    """Triton's compatibility.md."""
    lines = ["# Release Compatibility Matrix", "", "## Container Name: trtllm-python-py3", ""]
    heads = [
        "Triton release version",
        "NGC Tag",
        "Python version",
        "TensorRT version",
        "TensorRT-LLM version",
    ]
    lines += [
        f"| {' | '.join([*heads, 'CUDA version', 'CUDA Driver version', 'Size'])} |",
        "| --- " * 8 + "|",
    ]
    for row in reversed(RELEASES.values()):
        tensorrt = "10.0.1.6 " if row.release == "24.05" else row.tensorrt
        cells = [row.release, f"nvcr.io/{row.image}", f"Python {row.python}.3", tensorrt, row.tensorrt_llm]
        lines.append(f"| {' | '.join([*cells, f'{row.cuda}.036', row.driver, '14 GB'])} |")
    lines += ["", "## Container Name: vllm-python-py3", ""]
    lines += [
        "| Triton release version | NGC Tag | vLLM version | CUDA version | CUDA Driver version |",
        "| --- | --- | --- | --- | --- |",
        "| 26.08 | nvcr.io/x | 0.27.1 | 13.4.1.012 | 615.61 |",
        "| 26.07 | nvcr.io/x | 0.24.0 | 13.3.0.035 | 610.43.02 |",
        "| 24.03 | nvcr.io/x | 0.3.0 | 12.4.0 | 550.54.14 |",
    ]
    return "\n".join(
        [*lines, "", "## ONNX Runtime Versions", "", "| Triton release version | ONNX Runtime |", ""]
    )


DRIVERS = {
    "470": ("production branch", "2021-07-19"),
    "535": ("lts branch", "2023-06-14"),
    "550": ("production branch", "2024-02-28"),
    "580": ("lts branch", "2025-08-05"),
    "595": ("production branch", "2026-03-17"),
    "610": ("new feature branch", "2026-05-20"),
    "615": ("new feature branch", "2026-08-11"),
    "620": ("lts branch", "2026-09-30"),
}


def drivers() -> str:
    """releases.json."""
    return json.dumps(
        {
            name: {"type": kind, "driver_info": [{"release_version": f"{name}.1.1", "release_date": day}]}
            for name, (kind, day) in DRIVERS.items()
        }
    )


PRIMARY = "repodata/0a1b-primary.xml.gz"
REPOMD = (
    '<?xml version="1.0"?><repomd xmlns="http://linux.duke.edu/metadata/repo"><data type="filelists">'
    f'<location href="repodata/f.xml.gz"/></data><data type="primary"><location href="{PRIMARY}"/></data></repomd>'
)


def primary(versions: Mapping[str, Sequence[str]]) -> bytes:
    """A repository's list of packages."""
    text = ""
    for name, specs in versions.items():
        for spec in specs:
            epoch, _, rest = spec.rpartition(":")
            version, _, release = rest.partition("-")
            text += (
                f'<package type="rpm"><name>{name}</name><arch>x86_64</arch><version epoch="{epoch or 0}" '
                f'ver="{version}" rel="{release}"/><checksum type="sha256">0</checksum><location href="x.rpm"/>'
                "<format/></package>"
            )
    head = '<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm">'
    return gzip.compress(f'<?xml version="1.0"?>{head}{text}</metadata>'.encode())


def repository(pins: Mapping[str, str], older: Mapping[str, str], os_major: str) -> bytes:
    """One that has what is pinned today as its newest, and what was pinned before."""
    return primary(
        {
            name: [each[name].replace("{os_major}", os_major) for each in (older, pins) if name in each]
            for name in pins
        }
    )


def images() -> str:
    """worker-node-images.json."""
    shapes = [name for name in NEW.shapes if name != "BM.GPU.RTXPRO.8"]
    rows = [
        {"shapes": shapes, "arch": "x86_64", "vendor": "nvidia"},
        {"shapes": ["BM.GPU.GB300.4"], "arch": "aarch64", "vendor": "nvidia"},
        {"shapes": ["BM.GPU.MI300X.8"], "arch": "x86_64", "vendor": "amd"},
    ]
    return json.dumps({"schema_version": 1, "images": rows})


def tags() -> str:
    """The tags of nvidia/tritonserver."""
    found = [row.image.partition(":")[2] for row in (*NEW.releases.values(), *NEW.plain.values())]
    found += [f"{name}-py3" for name in NEW.releases] + ["26.10-py3-sdk", "latest", "26.08-vllm-python-py3"]
    return json.dumps({"name": "nvidia/tritonserver", "tags": found})


def saved(directory: Path) -> dict[str, bytes]:
    """Writes every page into the folder, under the names that --from reads; the same as a table."""
    found: dict[str, bytes] = {
        "nvidia-bulletins-2026.csv": index().encode(),
        **{f"nvidia-{number}.json": json.dumps(bulletin(number)).encode() for number in BULLETINS},
        "compatibility.md": compatibility().encode(),
        "tags.json": tags().encode(),
        "releases.json": drivers().encode(),
        "worker-node-images.json": images().encode(),
    }
    for name, os_major in (("docker-el8", "8"), ("docker-el9", "9"), ("toolkit", "9")):
        kind = name.partition("-")[0]
        found[f"{name}-repomd.xml"] = REPOMD.encode()
        found[f"{name}-0a1b-primary.xml.gz"] = repository(NEW.packages[kind], OLD.packages[kind], os_major)
    for file, content in found.items():
        (directory / file).write_bytes(content)
    return found


def without(tables_: Tables, **changed: Any) -> Tables:
    """Tables with these parts instead."""
    return replace(tables_, **changed)
