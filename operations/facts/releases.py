"""Releases on a host: their files, and the templates they are made from."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pyinfra.api.facts import FactBase

from operations.facts.artifacts import Files, WithManifest
from operations.facts.parse import digest_pairs, tabbed, verdict
from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.serving.compile_cache import DIRECTORY as CACHES
from operations.plan.serving.garbage import Stored

_PART = "\x1f"


class ReleaseFiles(WithManifest):
    """
    Whether a release's directory is complete and each of its files has the SHA-256 its manifest records.

    + path: the release's directory
    """

    listing = "find . -type f ! -name manifest.json -exec sha256sum {} +"

    def problem(self, files: Files, listed: list[str]) -> str:
        wanted = {name: entry["sha256"] for name, entry in files.items()}
        found = {path.removeprefix("./"): digest for digest, path in digest_pairs(listed)}
        changed = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        return f"changed: {', '.join(changed)}" if changed else ""


class TemplateFiles(FactBase[dict[str, str]]):
    """
    model -> the text of its config.pbtxt template, for the models that have one.

    + directory: the checkout's inflight_batcher_llm
    + models: names of models
    """

    default = dict

    def command(self, directory: str, models: list[str]) -> str:
        return (
            f"for model in {shlex.join(models)}; do "
            f'file={shlex.quote(directory)}/"$model"/config.pbtxt; '
            '! test -e "$file" || { printf \'\\037%s\\n\' "$model"; cat "$file"; echo; }; done'
        )

    def process(self, output: list[str]) -> dict[str, str]:
        found = {}
        for chunk in "\n".join(output).split(_PART)[1:]:
            model, _, text = chunk.partition("\n")
            found[model] = (
                text.rstrip("\n") + "\n"
            )  # echo parts the files, also one that ends without a line break
        return found


class ReleaseLinks(FactBase[dict[str, str]]):
    """
    `current` and `previous` -> the id of the release each points to; only those that exist.

    + state_root: the directory of the links
    """

    default = dict

    def command(self, state_root: str) -> str:
        return (
            f"cd {shlex.quote(state_root)} 2>/dev/null && for link in current previous; do "
            "! test -L $link || printf '%s\\t%s\\n' $link \"$(readlink $link)\"; done || :"
        )

    def process(self, output: list[str]) -> dict[str, str]:
        return {link: target.rsplit("/", 1)[-1] for link, target in tabbed(output).items()}


class LinkedReleases(FactBase[list[str]]):
    """
    The ids of all releases that a service of the host links to.

    + data_root: where the links are, or where `services` with the directories of the links is
    """

    default = list

    def command(self, data_root: str) -> str:
        place = shlex.quote(data_root)
        return f"find {place} -maxdepth 3 -name caches -prune -o -type l ! -path '*/releases/*' -lname '*releases/*' -printf '%l\n' 2>/dev/null || :"

    def process(self, output: list[str]) -> list[str]:
        return sorted({line.strip().rsplit("/", 1)[-1] for line in output if line.strip()})


class ReleaseDocuments(FactBase[tuple[dict[str, Any], dict[str, Any]] | None]):
    """
    A release's release.json and provenance.json; None where one of them is missing or cannot be read.

    + path: the release's directory
    """

    def command(self, path: str) -> str:
        place = shlex.quote(path)
        return f"cd {place} 2>/dev/null && cat release.json && printf '\\036\\n' && cat provenance.json || :"

    def process(self, output: list[str]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        release, _, provenance = "\n".join(output).partition("\x1e")
        try:
            return json.loads(release), json.loads(provenance)
        except json.JSONDecodeError:
            return None


class StoredReleases(FactBase[list[Stored]]):
    """
    Every complete release: when it was made, what became of it, what its release.json and golden.json say.

    + data_root: where `releases` is
    """

    default = list

    def command(self, data_root: str) -> str:
        return (
            f"cd {shlex.quote(data_root)}/releases 2>/dev/null && for id in *; do "
            '! test -e "$id/manifest.json" || { printf \'\\037%s\\t%s\\t%s\\n\' "$id" '
            '"$(stat --format %Y "$id/manifest.json")" "$(cat "../verdicts/$id" 2>/dev/null)"; '
            'cat "$id/release.json"; printf \'\\036\\n\'; cat "$id/golden.json" 2>/dev/null; echo; }; done || :'
        )

    def process(self, output: list[str]) -> list[Stored]:
        found = []
        for chunk in "\n".join(output).split(_PART)[1:]:
            head, _, text = chunk.partition("\n")
            identity, made, judged = head.split("\t", 2)
            document, _, golden = text.partition("\x1e")
            try:
                found.append(stored(identity, int(made), judged.strip(), document, golden))
            except (ValueError, LookupError, TypeError, AttributeError):
                continue  # not one of ours, or of a version before: it is neither counted nor touched
        return found


def stored(identity: str, made: int, judged: str, document: str, golden: str) -> Stored:
    """A release as its own files describe it."""
    release = json.loads(document)
    asked = json.loads(golden) if golden.strip() else {}
    return Stored(
        id=identity,
        made=made,
        verdict=verdict(judged),
        model=release["model"],
        stack=release["stack"]["release"],
        artifacts=tuple((name.split("-")[0], a["key"]) for name, a in release["artifacts"].items()),
        images=tuple(release["images"]),
        golden=tuple(asked.get("golden", ())),
        cache=str(release.get("cache", "")),
        service=str(release.get("service", "")),
        address=asked.get("address", "127.0.0.1"),
        grpc_port=int(asked.get("grpc_port", 8001)),
    )


class StoredNames(FactBase[list[str]]):
    """
    What garbage may be among: kind/key of complete artifacts, kind/.key.partial of unfinished ones, caches/key, tags of our
    images.

    + data_root: where they are
    """

    default = list

    def command(self, data_root: str) -> str:
        directories = shlex.join(DIRECTORIES.values())
        return (
            f"cd {shlex.quote(data_root)} 2>/dev/null && find {directories} -mindepth 2 -maxdepth 2 "
            "-name manifest.json ! -path '*/.*' -printf '%h\\n' 2>/dev/null; "
            f"find {directories} -mindepth 1 -maxdepth 1 -name '.*.partial*' 2>/dev/null; "
            f"find {CACHES} -mindepth 1 -maxdepth 1 -type d 2>/dev/null; "
            "docker image ls --format '{{.Repository}}:{{.Tag}}' --filter 'reference=tritonhost/*' 2>/dev/null || :"
        )

    def process(self, output: list[str]) -> list[str]:
        return [line.strip() for line in output if line.strip()]
