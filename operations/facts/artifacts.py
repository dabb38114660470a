"""Single artifacts as a stage sees them, fresh, right before it acts."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra.api.facts import FactBase

from operations.facts.host_state import file_problem, read_manifest, sizes_and_times
from operations.plan.capacity.described import CONFIG, QUANTIZATION, SIZES, Description


@dataclass(frozen=True)
class Artifact:
    """Whether a directory is a complete artifact, and why not."""

    complete: bool
    problem: str


Files = Mapping[str, Mapping[str, Any]]  # of a manifest


class WithManifest(FactBase[Artifact]):
    """
    A directory compared with its manifest, which is one line.

    + path: the directory
    """

    listing: str  # the command that prints what is in it

    @staticmethod
    def default() -> Artifact:
        return Artifact(False, "absent")

    def command(self, path: str) -> str:
        place = shlex.quote(path)
        return f"! test -e {place}/manifest.json || {{ cd {place} && cat manifest.json && {self.listing}; }}"

    def process(self, output: list[str]) -> Artifact:
        # a shell's own words before it are none of it
        first = next((n for n, line in enumerate(output) if line.lstrip().startswith("{")), 0)
        manifest = read_manifest(output[first])
        if manifest is None:
            return Artifact(False, "unreadable manifest")
        problem = self.problem(manifest["files"], output[first + 1 :])
        return Artifact(not problem, problem)

    def problem(self, files: Files, listed: list[str]) -> str:
        """What differs from the manifest; empty where nothing does."""
        raise NotImplementedError


class ArtifactState(WithManifest):
    """
    Whether the artifact at `path` is complete: its manifest, and each file's size and time.

    + path: the artifact's directory
    """

    listing = "find . -type f -printf '%P\\t%s\\t%Ts\\n'"

    def problem(self, files: Files, listed: list[str]) -> str:
        return file_problem(files, sizes_and_times(listed))


class ImageId(FactBase[str]):
    """The id of the image with this tag in the docker engine; empty without the image or the engine."""

    default = str

    def command(self, tag: str) -> str:
        return f"docker image inspect --format '{{{{.Id}}}}' {shlex.quote(tag)} 2>/dev/null || :"

    def process(self, output: list[str]) -> str:
        return _image_id(output)


class ImageRecord(FactBase[str]):
    """
    The id that an image was made with; empty where none is on record.

    + path: the record's file
    """

    default = str

    def command(self, path: str) -> str:
        return f"cat {shlex.quote(path)} 2>/dev/null || :"

    def process(self, output: list[str]) -> str:
        return _image_id(output)


def _image_id(output: list[str]) -> str:
    """The first line that is the id of an image; a tool's warning is none."""
    return next((line.strip() for line in output if re.fullmatch(r"sha256:[0-9a-f]+", line.strip())), "")


class Described(FactBase[Description]):
    """
    What a downloaded repository, or its description, says of the model; nothing where there is neither.

    + paths: directories, the first that is complete is read
    """

    @staticmethod
    def default() -> Description:
        return Description()

    def command(self, paths: list[str]) -> str:
        files = shlex.join([CONFIG, QUANTIZATION, SIZES])
        # base64, because a file may hold any line
        return (
            f'for place in {shlex.join(paths)}; do [ -e "$place/manifest.json" ] || continue; '
            f'for file in {files}; do [ ! -e "$place/$file" ] || '
            'printf \'%s\\t%s\\n\' "$file" "$(base64 -w 0 "$place/$file")"; done; '
            "find \"$place\" -name '*.safetensors' -printf 'bytes\\t%s\\n'; break; done"
        )

    def process(self, output: list[str]) -> Description:
        files: dict[str, dict[str, Any]] = {}
        size = 0
        for line in output:
            name, _, value = line.partition("\t")
            if name == "bytes":
                size += int(value)
            else:
                files[name] = _table(value)
        sizes = [number for number in files.get(SIZES, {}).values() if type(number) is int]
        return Description(files.get(CONFIG, {}), files.get(QUANTIZATION, {}), size or sum(sizes))


def _table(encoded: str) -> dict[str, Any]:
    try:
        found = json.loads(base64.b64decode(encoded))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
