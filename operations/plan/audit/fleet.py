"""What is on the hosts of an inventory, as `tritonhost exposure --save` writes it, and what the inventory wants of each. Pure.

An entry is one service of a host, as everywhere: `gpu-1/llama`. What all services of a host share, such as its driver, stands
in each entry of the host.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from operations.plan.audit.bulletins import checked
from operations.plan.catalog.support_matrix import PLAIN_RELEASES
from operations.plan.catalog.version_floors import PLAIN_MAY_BE_NEWER, Waiver, package_components
from operations.plan.errors import one_line
from operations.plan.inventory.services import machine_of

FORMAT = 1
# No bulletin is read for these: they are listed, and said not to be compared.
WITHOUT_BULLETINS = ("haproxy", "postgresql", "pgvector", "python")
# What the services of a host have in common
OF_THE_HOST = ("driver", "docker-ce", "containerd.io", "nvidia-container-toolkit", "haproxy")

# what a host says is printed: one plain line
Text = Annotated[str, AfterValidator(one_line), Field(max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Found(_Part):
    """One component on a host. `where`: what says so, such as rpm, or the release's id."""

    component: Text
    version: Text
    where: Text = ""


class Wanted(_Part):
    """What the inventory says of an entry: what a proposal changes, and what is accepted."""

    model: Text = ""
    kind: Text = ""
    source: Text = ""
    image_release: Text = ""
    gateway_image: Text = ""
    docker_packages: dict[str, str | None] = {}
    nvidia_container_toolkit_packages: dict[str, str | None] = {}
    waivers: list[Waiver] = []


class Entry(_Part):
    """
    One service of a host.

    + problem: why the host could not be read, or what of it; empty: it was read
    + release: the id of the running release; empty: none runs
    """

    host: Annotated[Text, Field(min_length=1)]
    problem: Annotated[str, AfterValidator(one_line), Field(max_length=1000)] = ""
    release: Text = ""
    components: list[Found] = []
    wanted: Wanted = Wanted()

    @property
    def machine(self) -> str:
        """The host without its service."""
        return machine_of(self.host)

    def place(self, component: str) -> str:
        """The name that a component's row has: what all services share is the host's."""
        return self.machine if component in OF_THE_HOST else self.host


class Fleet(_Part):
    """The file."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    observed: datetime
    hosts: list[Entry]


def load(path: Path) -> Fleet:
    """A saved observation. Raises PlanError."""
    return Fleet.model_validate(checked(path, Fleet, "write it again: tritonhost exposure --save FILE"))


def as_text(fleet: Fleet) -> str:
    """The file's text."""
    return fleet.model_dump_json(indent=1) + "\n"


def of_release(document: Any) -> list[Found]:
    """
    What a release serves with, by its release.json.

    The stack of a profile of kind `plan` is that of the month's image with TensorRT-LLM, which the plain image lacks.

    Raises ValueError, LookupError or TypeError for a file that is none.
    """
    stack, inputs = document["stack"], document["image"]["inputs"]
    identity = f"release {document['release']}"
    named = str(inputs.get("image") or inputs.get("base") or "")
    with_llm = "tree" in inputs or "trtllm" in named
    found = [("triton", stack.get("triton_release") or stack["release"])]
    if with_llm and stack["tensorrt_llm"]:
        found.append(("tensorrt-llm", stack["tensorrt_llm"]))
    newer = not with_llm and stack["release"] >= PLAIN_MAY_BE_NEWER and stack["release"] not in PLAIN_RELEASES
    if stack["tensorrt"] and not newer:
        found.append(("tensorrt", stack["tensorrt"]))
    for image in document["images"].values():
        name, _, tag = str(image.get("image", "")).partition(":")
        if "pgvector" in name:
            found.append(("pgvector", tag))
    return [
        Found(component=name, version=one_line(str(version))[:200], where=one_line(identity)[:200])
        for name, version in found
    ]


def of_packages(packages: dict[str, str]) -> list[Found]:
    """
    Of rpms.

    + packages: name -> [epoch:]version-release
    """
    found = [
        Found(component=name, version=version, where="rpm") for name, version in package_components(packages)
    ]
    if "haproxy" in packages:
        found.append(Found(component="haproxy", version=packages["haproxy"].rpartition(":")[2], where="rpm"))
    return found
