"""Single artifacts as a stage sees them, fresh, right before it acts."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from pyinfra.api.facts import FactBase

from operations.facts.host_state import file_problem, read_manifest, sizes_and_times


@dataclass(frozen=True)
class Artifact:
    """Whether a directory is a complete artifact, and why not."""

    complete: bool
    problem: str


class ArtifactState(FactBase[Artifact]):
    """
    Whether the artifact at `path` is complete: its manifest, and each file's size and time.

    + path: the artifact's directory
    """

    @staticmethod
    def default() -> Artifact:
        return Artifact(False, "absent")

    def command(self, path: str) -> str:
        place = shlex.quote(path)
        return (
            f"! test -e {place}/manifest.json || {{ cd {place} && cat manifest.json && "
            "find . -type f -printf '%P\\t%s\\t%Ts\\n'; }"
        )

    def process(self, output: list[str]) -> Artifact:
        manifest = read_manifest(output[0])
        if manifest is None:
            return Artifact(False, "unreadable manifest")
        problem = file_problem(manifest["files"], sizes_and_times(output[1:]))
        return Artifact(not problem, problem)


class ImageId(FactBase[str]):
    """The id of the image with this tag in the docker engine; empty without the image or the engine."""

    default = str

    def command(self, tag: str) -> str:
        return f"docker image inspect --format '{{{{.Id}}}}' {shlex.quote(tag)} 2>/dev/null || :"

    def process(self, output: list[str]) -> str:
        return output[0].strip()


class ImageRecord(FactBase[str]):
    """
    The id that an image was made with; empty where none is on record.

    + path: the record's file
    """

    default = str

    def command(self, path: str) -> str:
        return f"cat {shlex.quote(path)} 2>/dev/null || :"

    def process(self, output: list[str]) -> str:
        return output[0].strip()


class ModelConfig(FactBase[dict[str, Any]]):
    """
    A downloaded model's config.json; empty where there is none, or it is not one.

    + path: the file
    """

    default = dict

    def command(self, path: str) -> str:
        return f"cat {shlex.quote(path)} 2>/dev/null || :"

    def process(self, output: list[str]) -> dict[str, Any]:
        try:
            config = json.loads("\n".join(output))
        except json.JSONDecodeError:
            return {}
        return config if isinstance(config, dict) else {}
