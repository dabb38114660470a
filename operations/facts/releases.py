"""Releases on a host: their files, and the templates they are made from."""

from __future__ import annotations

import shlex

from pyinfra.api.facts import FactBase

from operations.facts.artifacts import Artifact
from operations.facts.host_state import digest_pairs, read_manifest

_PART = "\x1f"


class ReleaseFiles(FactBase[Artifact]):
    """
    Whether a release's directory is complete and each of its files has the SHA-256 its manifest records.

    + path: the release's directory
    """

    @staticmethod
    def default() -> Artifact:
        return Artifact(False, "absent")

    def command(self, path: str) -> str:
        place = shlex.quote(path)
        return (
            f"! test -e {place}/manifest.json || {{ cd {place} && cat manifest.json && "
            "find . -type f ! -name manifest.json -exec sha256sum {} +; }"
        )

    def process(self, output: list[str]) -> Artifact:
        manifest = read_manifest(output[0])
        if manifest is None:
            return Artifact(False, "unreadable manifest")
        wanted = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        found = {path.removeprefix("./"): digest for digest, path in digest_pairs(output[1:])}
        changed = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        return Artifact(not changed, f"changed: {', '.join(changed)}" if changed else "")


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

    + data_root: the directory of the links
    """

    default = dict

    def command(self, data_root: str) -> str:
        return (
            f"cd {shlex.quote(data_root)} 2>/dev/null && for link in current previous; do "
            "! test -L $link || printf '%s\\t%s\\n' $link \"$(readlink $link)\"; done || :"
        )

    def process(self, output: list[str]) -> dict[str, str]:
        pairs = (line.split("\t", 1) for line in output if "\t" in line)
        return {link: target.rsplit("/", 1)[-1] for link, target in pairs}
