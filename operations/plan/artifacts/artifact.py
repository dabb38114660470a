"""What a release is made of: artifacts, each with its key, its place, and the commands that make it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from operations.plan.artifacts.commands import Argv
from operations.plan.artifacts.keys import Inputs, key_of


class Work(Protocol):
    """Anything that a transient unit on the host can make."""

    @property
    def unit(self) -> str:
        """The unit's name without `.service`."""

    @property
    def title(self) -> str:
        """The prefix of each line of its output, for the operator."""

    @property
    def result(self) -> str:
        """What exists when it is done."""

    @property
    def proof(self) -> str:
        """
        A shell command that succeeds if `result` exists; empty if that cannot be tested.

        systemd reports `success` for a unit that it no longer knows, even if the unit failed.
        """

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
    names: tuple[
        str, ...
    ] = ()  # files that must be there when it is made: a directory does not show what is missing

    @property
    def key(self) -> str:
        """The hash of its inputs."""
        return key_of({"kind": self.kind, **self.inputs})

    @property
    def path(self) -> str:
        """Its path once it is complete."""
        return artifact_path(self.data_root, self.kind, self.key)

    @property
    def unit(self) -> str:
        """The transient unit that makes it; its name prevents a second build of the same key."""
        return f"tritonhost-{self.kind}-{self.key}"

    @property
    def title(self) -> str:
        """For the operator."""
        return f"{self.kind} {self.key}"

    @property
    def result(self) -> str:
        """For the error."""
        return self.path

    @property
    def proof(self) -> str:
        """Its manifest exists, and its partial directory does not: with one, the artifact is damaged and is being replaced."""
        manifest, partial = shlex.quote(f"{self.path}/manifest.json"), shlex.quote(partial_path(self.path))
        return f"test -s {manifest} && ! test -e {partial}"

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
            **({"NAMES": " ".join(self.names)} if self.names else {}),
        }

    def body(self) -> str:
        """The shell function `make_it`."""
        return _make_it(self.commands)


@dataclass(frozen=True)
class Step:
    """An artifact and the title of its making. `unless`: an artifact that, once complete, makes this one unnecessary."""

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
        """The file that holds its id in docker: a tag may point elsewhere, and is not trusted."""
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

    @property
    def proof(self) -> str:
        """The docker engine has it under its tag."""
        return f"docker image inspect {shlex.quote(self.tag)} >/dev/null 2>&1"

    def variables(self) -> dict[str, str]:
        """The input of files/host/work.sh."""
        return _without_directory(self.unit)

    def body(self) -> str:
        """The shell function `make_it`."""
        return _make_it(self.commands)


def published(inputs: Inputs) -> dict[str, str]:
    """The published images that an image is pulled as or built on, name:tag -> digest."""
    pairs = (("image", "digest"), ("base", "base_digest"), ("pytorch", "pytorch_digest"))
    # a release of another version of this tool may lack a digest
    return {inputs[name]: inputs[digest] for name, digest in pairs if inputs.get(name) and inputs.get(digest)}


@dataclass(frozen=True)
class HostCommand:
    """
    A long command on the host itself, such as dnf: it runs to its end even if the connection is lost.

    + title: for the operator, and part of the unit's name
    + identity: the inputs of the wanted state: two runs that want the same state share the unit
    + result: what exists when it is done
    + proof: a shell command that succeeds if it exists
    """

    title: str
    commands: tuple[tuple[str, ...], ...]
    result: str
    identity: Inputs
    proof: str
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
    """The input of files/host/work.sh for work whose result is not a directory."""
    empty = dict.fromkeys(("FINAL", "PARTIAL", "HEAD"), "")
    return {**empty, "RESUMABLE": "0", "CHECKSUMS": "0", "CONTAINER": unit}


# The directory of each kind of artifact under the data root.
DIRECTORIES = {
    "source": "sources",
    "weights": "weights",
    "dataset": "datasets",
    "description": "descriptions",
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
