"""What a release is made of: artifacts, each with its key, its place, and the commands that make it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from operations.plan.commands import Argv
from operations.plan.keys import Inputs, key_of


class Work(Protocol):
    """Anything a transient unit on the host can make."""

    @property
    def unit(self) -> str:
        """The unit's name without `.service`."""

    @property
    def title(self) -> str:
        """What the operator reads in front of each line of its output."""

    @property
    def result(self) -> str:
        """What is there when it is done."""

    @property
    def files(self) -> Mapping[str, str]:
        """Further files for the unit's directory on tmpfs, name -> content."""

    @property
    def needs_token(self) -> bool:
        """Whether the Hugging Face token is among them."""

    def variables(self) -> dict[str, str]:
        """The input of files/host/work.sh."""

    def body(self) -> str:
        """The shell function `make_it`."""


def _make_it(commands: tuple[tuple[str, ...], ...]) -> str:
    return "make_it() {\n" + "\n".join(shlex.join(command) for command in commands) + "\n}\n"


@dataclass(frozen=True)
class Artifact:
    """
    A directory named by what it was made from: `<data_root>/<kind>s/<key>`, with a manifest written last.

    + commands: argument vectors, run one after the other on the host
    + resumable: an interrupted run's files are kept and continued
    + checksums: the manifest lists every file
    + files: further files for the unit's directory on tmpfs, name -> content, or @path of a file of this project
    + needs_token: the Hugging Face token is put beside them
    """

    kind: str
    data_root: str
    inputs: Inputs
    commands: tuple[tuple[str, ...], ...]
    resumable: bool = False
    checksums: bool = True
    files: Mapping[str, str] = field(default_factory=dict)
    needs_token: bool = False

    @property
    def key(self) -> str:
        """The hash of its inputs."""
        return key_of({"kind": self.kind, **self.inputs})

    @property
    def path(self) -> str:
        """Where it is once it is complete."""
        return artifact_path(self.data_root, self.kind, self.key)

    @property
    def unit(self) -> str:
        """The transient unit that makes it; its name is what keeps a second build of the key away."""
        return f"tritonhost-{self.kind}-{self.key}"

    @property
    def title(self) -> str:
        """For the operator."""
        return f"{self.kind} {self.key}"

    @property
    def result(self) -> str:
        """For the error."""
        return self.path

    def variables(self) -> dict[str, str]:
        """The input of files/host/work.sh."""
        head = json.dumps({"kind": self.kind, "key": self.key, "inputs": self.inputs}, sort_keys=True)
        return {
            "FINAL": self.path,
            "PARTIAL": partial_path(self.path),
            "RESUMABLE": "1" if self.resumable else "0",
            "CHECKSUMS": "1" if self.checksums else "0",
            "HEAD": head[:-1],
            "CONTAINER": self.unit,
        }

    def body(self) -> str:
        """The shell function `make_it`."""
        return _make_it(self.commands)


@dataclass(frozen=True)
class Step:
    """An artifact and what is said while it is made. `unless`: an artifact that, once complete, does without it."""

    title: str
    artifact: Artifact
    unless: Artifact | None = None


@dataclass(frozen=True)
class ServingImage:
    """The image that converts, builds and serves; its tag is the hash of its inputs. `name`: what it is used for."""

    inputs: Inputs
    commands: tuple[tuple[str, ...], ...]
    files: Mapping[str, str] = field(default_factory=dict)
    needs_token: bool = False
    name: str = "serving"

    @property
    def key(self) -> str:
        """The hash of its inputs."""
        return key_of({"kind": "image", **self.inputs})

    @property
    def tag(self) -> str:
        """Its name in the docker engine."""
        return f"tritonhost/{self.name}:{self.key}"

    def record(self, data_root: str) -> str:
        """The file that holds its id in the docker engine: a tag may be pointed elsewhere, and is not trusted."""
        return f"{data_root}/images/{self.key}"

    @property
    def unit(self) -> str:
        """The transient unit that makes it."""
        return f"tritonhost-image-{self.key}"

    @property
    def title(self) -> str:
        """For the operator."""
        return f"image {self.key}"

    @property
    def result(self) -> str:
        """For the error."""
        return f"the image {self.tag}"

    def variables(self) -> dict[str, str]:
        """The input of files/host/work.sh."""
        return _without_directory(self.unit)

    def body(self) -> str:
        """The shell function `make_it`."""
        return _make_it(self.commands)


@dataclass(frozen=True)
class HostCommand:
    """
    A long command on the host itself, such as one of dnf's: it goes on to its end when the connection is lost.

    + title: what the operator reads, and the unit is called after
    + identity: what the wanted state is made of: two runs that want the same share the unit
    + result: what is there when it is done
    """

    title: str
    commands: tuple[tuple[str, ...], ...]
    result: str
    identity: Inputs
    files: Mapping[str, str] = field(default_factory=dict)
    needs_token: bool = False

    @property
    def unit(self) -> str:
        """The transient unit that runs it."""
        return f"tritonhost-{self.title}-{key_of({'kind': self.title, **self.identity})}"

    def variables(self) -> dict[str, str]:
        """The input of files/host/work.sh."""
        return _without_directory(self.unit)

    def body(self) -> str:
        """The shell function `make_it`."""
        return _make_it(self.commands)


def _without_directory(unit: str) -> dict[str, str]:
    """The input of files/host/work.sh for what ends in no directory."""
    empty = dict.fromkeys(("FINAL", "PARTIAL", "HEAD"), "")
    return {**empty, "RESUMABLE": "0", "CHECKSUMS": "0", "CONTAINER": unit}


# The directory of each kind of artifact under the data root.
DIRECTORIES = {
    "source": "sources",
    "weights": "weights",
    "dataset": "datasets",
    "checkpoint": "checkpoints",
    "engine": "engines",
    "onnx": "onnx",
    "plan": "plans",
    "release": "releases",
}


def artifact_path(data_root: str, kind: str, key: str) -> str:
    """`<data_root>/engines/<key>`."""
    return f"{data_root}/{DIRECTORIES[kind]}/{key}"


def partial_path(path: str) -> str:
    """Where an artifact is while it is made: beside its final place, so that a rename completes it."""
    directory, name = path.rsplit("/", 1)
    return f"{directory}/.{name}.partial"


def frozen(commands: list[Argv]) -> tuple[tuple[str, ...], ...]:
    """Argument vectors as they are kept in a release."""
    return tuple(tuple(command) for command in commands)
