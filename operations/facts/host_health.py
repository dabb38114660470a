"""What the preflight asks of a host, in one round trip: files/host/preflight.sh, and the readers of what it prints."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from xml.etree import ElementTree

from pyinfra.api.exceptions import FactProcessError
from pyinfra.api.facts import FactBase

from operations.facts.parse import assignments, sections, tabbed, unit_properties
from operations.plan.capacity.gpu import FAULT
from operations.plan.observed.health import Answer, GpuHealth, Health, Holder, Space
from operations.scripts import host_script

# https://docs.oracle.com/en-us/iaas/Content/Compute/Tasks/gettingmetadata.htm: version 2 wants the header that the script sends
METADATA = "http://169.254.169.254/opc/v2/instance/"
NOT_KNOWN = ("", "N/A", "[N/A]", "Not Supported", "Requested functionality has been deprecated")


class HostHealth(FactBase[Health]):
    """
    The host as `operations.plan.observed.health.Health`.

    + data_root: where the artifacts are, or will be
    + docker_root: docker's own directory, as daemon.json and the inventory have it
    + names: host names to resolve
    + urls: sources to reach; a HEAD without any token
    """

    default = Health

    def command(self, data_root: str, names: Sequence[str], urls: Sequence[str], docker_root: str) -> str:
        return host_script(
            "preflight.sh",
            {
                "DATA_ROOT": data_root,
                "DOCKER_ROOT": docker_root,
                "METADATA": METADATA,
                "NAMES": "\n".join(names),
                "URLS": "\n".join(urls),
            },
        )

    def process(self, output: list[str]) -> Health:
        try:
            return health(output, time.time())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # anything else would end the run of all hosts
            raise FactProcessError(f"the host's health could not be read: {error}") from error


def health(output: list[str], now: float) -> Health:
    """
    The script's output as a Health. Raises ValueError where it ended early.

    + now: this machine's clock when the output had come, in seconds since the epoch
    """
    part = sections(output)
    if "end" not in part:
        raise ValueError("the preflight's output ends early")
    gpus, driver, gpu_problem = gpus_of("\n".join(part["gpus"]))
    shape, metadata = _shape(part["network"])
    links, inactive = nvlinks("\n".join(part["nvlink"]))
    kernel = tabbed(part["kernel"])
    disks = tabbed(part["disks"])
    return Health(
        os_release=assignments(part["os-release"]),
        architecture=_text(part["architecture"]),
        user=_text(part["user"]),
        shape=shape,
        metadata=metadata,
        gpus=gpus,
        gpu_problem=gpu_problem,
        driver=driver,
        xids=tuple(part["xids"][1:]) if part["xids"][:1] == ["read"] else None,
        nvlinks=links,
        nvlinks_inactive=inactive,
        switches=sum(1 for line in part["switches"] if line.strip()),
        fabric_manager=_version(_text(part["fabric-manager"])),
        units=unit_properties(part["units"]),
        docker_root=disks.pop("docker", "/var/lib/docker"),
        disks={path: space for path, line in disks.items() if (space := _space(line))},
        memory={name: 1024 * int(text) for name, text in tabbed(part["memory"]).items() if text.isdecimal()},
        clock_ahead_s=_ahead(_text(part["clock"]), now),
        synchronized=_text(part["synchronized"]),
        names=_answers(part["network"], "name"),
        sources={url: _answer(text) for url, text in _answers(part["network"], "source").items()},
        proxies=tuple(line for line in part["proxies"] if line.startswith("/")),
        listening=listening(part["listening"]),
        locks=tuple(_holders(part["locks"])),
        cloud_init=next(
            (li.split(":", 1)[1].strip() for li in part["cloud-init"] if li.startswith("status:")), ""
        ),
        selinux=_text(part["selinux"]),
        container_selinux=_text(part["container-selinux"]),
        temporary=dict(
            line.split(" ", 1) for line in part["temporary"] if line.startswith("/") and " " in line
        ),
        umask=_text(part["umask"]),
        ip_forward=_text(part["ip-forward"]),
        kernel=kernel.get("running", ""),
        next_kernel=kernel.get("next", ""),
        next_driver=kernel.get("driver"),
        kernel_fixed=_marked(part["kernel-fixes"], "fixed") if "read" in part["kernel-fixes"] else None,
        kernel_blocked=_marked(part["kernel-fixes"], "blocked"),
    )


def _marked(lines: Sequence[str], mark: str) -> frozenset[str]:
    """What stands behind the mark, of all lines that begin with it."""
    return frozenset(line.split("\t", 1)[1] for line in lines if line.startswith(f"{mark}\t"))


def gpus_of(text: str) -> tuple[tuple[GpuHealth, ...], str, str]:
    """
    The GPUs in the document of `nvidia-smi -q -x`, the driver's version, and what is wrong where there are none.

    Names of the elements: nvsmi_device_v13.dtd, and what drivers before R550 called them.
    """
    if not text.strip():
        return (), "", "no nvidia-smi, or no answer of it within 5 s"
    # what it warns of stands before its document, or behind
    before, start, document_text = text.partition("<?xml")
    inside, end, behind = document_text.rpartition("</nvidia_smi_log>")
    around = f"{before} {behind if end else ''}"
    fault = next((line for line in around.splitlines() if FAULT.search(line)), "")
    if "<!ENTITY" in text or not start or fault:
        said = " ".join((fault if start else text).split())
        return (), "", f"nvidia-smi printed {said[:400]!r} instead of its GPUs"
    try:
        document = ElementTree.fromstring(
            f"{start}{inside}{end}" if end else f"{start}{document_text}".strip()
        )
    except ElementTree.ParseError as error:
        return (), "", f"nvidia-smi printed XML that ends early or is none ({error})"
    elements = document.findall("gpu")
    gpus = tuple(_gpu(number, element) for number, element in enumerate(elements))
    unusable = "; ".join(filter(None, map(_unusable, range(len(elements)), elements)))
    problem = unusable or ("" if gpus else "nvidia-smi tells of no GPU")
    return gpus, _field(document, "driver_version"), problem


def _unusable(number: int, gpu: ElementTree.Element) -> str:
    """What one GPU says in the place of its name and memory, where it is lost or waits for a reset."""
    for path in ("product_name", "uuid", "fb_memory_usage/total"):
        if FAULT.search(text := (gpu.findtext(path) or "").strip()):
            return f"GPU {number}: nvidia-smi says {text} for {path}"
    return ""


def _gpu(number: int, gpu: ElementTree.Element) -> GpuHealth:
    def words(kinds: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        return tuple(name for name, path in kinds if _field(gpu, path) == "Yes")

    memory = _field(gpu, "fb_memory_usage/total").removesuffix(" MiB")
    return GpuHealth(
        index=number,
        name=_field(gpu, "product_name"),
        memory_mib=int(memory) if memory.isdecimal() else 0,
        ecc=_field(gpu, "ecc_mode/current_ecc") or "N/A",
        uncorrectable=_uncorrectable(gpu.find("ecc_errors/volatile")),
        uncorrectable_ever=_uncorrectable(gpu.find("ecc_errors/aggregate")),
        repair_pending=words(
            (
                ("row remapping", "remapped_rows/remapped_row_pending"),
                ("page retirement", "retired_pages/pending_retirement"),
                ("channel repair", "ecc_errors/channel_repair_pending"),
                ("TPC repair", "ecc_errors/tpc_repair_pending"),
            )
        ),
        repair_failed=words(
            (
                ("row remapping", "remapped_rows/remapped_row_failure"),
                ("unrepairable memory", "ecc_errors/unrepairable_memory"),
            )
        ),
        mig=_field(gpu, "mig_mode/current_mig"),
        mig_pending=_field(gpu, "mig_mode/pending_mig"),
        persistence=_field(gpu, "persistence_mode"),
        fabric_state=_field(gpu, "fabric/state"),
        fabric_status=_field(gpu, "fabric/status"),
        recovery_action=_field(gpu, "gpu_recovery_action"),
    )


def _field(element: ElementTree.Element, path: str) -> str:
    """An element's text; empty where it is missing or says that it is not known."""
    text = (element.findtext(path) or "").strip()
    return "" if text in NOT_KNOWN else text


def _uncorrectable(counters: ElementTree.Element | None) -> int | None:
    """The sum of the counters of errors that were not corrected; None where there is no such counter."""
    if counters is None:
        return None
    double = counters.findtext("double_bit/total")  # GPUs before Ampere count single and double bits
    texts = [double] if double else [c.text for c in counters if "uncorrectable" in c.tag]
    numbers = [int(text) for text in texts if text and text.strip().isdecimal()]
    return sum(numbers) if numbers else None


def nvlinks(text: str) -> tuple[int | None, tuple[str, ...]]:
    """How many links `nvidia-smi nvlink --status` tells of, and which of them are not up; None where it tells nothing."""
    gpu, links, inactive = "?", 0, []
    for line in text.splitlines():
        if found := re.match(r"GPU (\d+):", line):
            gpu = found[1]
        elif found := re.match(r"\s+Link (\d+): (.*)$", line):
            links += 1
            if "inactive" in found[2].lower():
                inactive.append(f"GPU {gpu} link {found[1]}")
    return (links, tuple(inactive)) if gpu != "?" else (None, ())


def listening(lines: list[str]) -> dict[int, str] | None:
    """TCP port -> program, of ss's lines; None where it printed none: sshd listens on a host that was reached."""
    found: dict[int, str] = {}
    for line in lines:
        fields = line.split(None, 5)
        port = fields[3].rpartition(":")[2] if len(fields) > 3 else ""
        if port.isdecimal():
            program = re.search(r'\(\("([^"]+)"', fields[5]) if len(fields) > 5 else None
            found[int(port)] = program[1] if program else found.get(int(port), "")
    return found or None


def _shape(lines: list[str]) -> tuple[str, str]:
    """The shape in OCI's instance metadata, or why there is none."""
    for line in lines:
        if line.startswith("metadata\t"):
            _, code, text = line.split("\t", 2)
            if code.strip() != "0":
                return "", "the instance metadata service does not answer"
            try:
                document = json.loads(text)
            except json.JSONDecodeError:
                return "", "the instance metadata is no JSON"
            found = document.get("shape") if isinstance(document, dict) else None
            return (
                (found, "")
                if isinstance(found, str) and found
                else ("", "the instance metadata names no shape")
            )
    return "", "the host has no curl to ask the instance metadata with"


def _answers(lines: list[str], kind: str) -> dict[str, str]:
    found = (line.split("\t", 2) for line in lines if line.startswith(f"{kind}\t") and line.count("\t") >= 2)
    return {name: text.strip() for _, name, text in found}


def _answer(text: str) -> Answer:
    code, _, said = text.partition("\t")
    status = re.search(r"HTTP (\d{3})\s*$", said)
    error = said[: status.start()] if status else said
    return Answer(int(code), status[1] if status else "000", " ".join(error.removeprefix("curl: ").split()))


def _space(line: str) -> Space | None:
    fields = line.split(None, 4)
    if len(fields) != 5 or not fields[0].isdecimal() or not fields[1].isdecimal():
        return None
    # xfs and ext4 count inodes; a file system that does not prints a dash
    inodes, free = (int(text) if text.isdecimal() else 0 for text in fields[2:4])
    return Space(fields[4], int(fields[0]), int(fields[1]), inodes, free)


def _holders(lines: list[str]) -> list[Holder]:
    found = []
    for line in lines:
        path, pid, command = [*line.split("\t", 2), "", ""][:3]
        if pid.isdecimal():
            found.append(Holder(path, int(pid), " ".join(command.split())))
    return found


def _ahead(text: str, now: float) -> float | None:
    try:
        return float(text) - now
    except ValueError:
        return None


def _version(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else ""


def _text(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
