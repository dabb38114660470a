"""Read what a model's repository says of itself: its files' names and sizes, its small files, and the headers of its weights.

From a hub of Hugging Face or a mirror of one, or from a directory. No weights are downloaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from operations.intake.secrets import SOURCES, hub_token
from operations.plan.errors import PlanError, Said, one_line
from operations.plan.proposal.repository import DEEPEST, LARGEST_SMALL_FILE, SMALL_FILES, Repository

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SECONDS = 10  # without an answer of the hub
# Headers are read of so many files of weights at most; DeepSeek-V3 has 163
_MOST_HEADERS = 400
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z")
# Where huggingface_hub keeps a download: models--OWNER--NAME/snapshots/COMMIT
_SNAPSHOT = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)/snapshots/(?P<commit>[0-9a-f]{40})\Z")


def read_hub(name: str, endpoint: str, revision: str | None = None) -> Repository:
    """
    A repository on a hub, at one commit.

    + endpoint: the hub's URL, or a mirror's
    + revision: a commit, a branch or a tag; None: the newest commit of main

    Raises PlanError in one line for a repository that is absent, private or gated without a token, and for a hub that does not answer
    as one, and SecretMissing for a HF_TOKEN that is none. The token is used if there is one; only the hub gets it.
    """
    if not _NAME.match(name) or ".." in name:
        raise PlanError("REPOSITORY", name, "OWNER/NAME, or the path of a directory", reference="wrong-name")
    api = _api(endpoint)
    try:
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=SECONDS)
        files = {one.rfilename: one.size or 0 for one in info.siblings or ()}
        if not info.sha or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
            raise PlanError(endpoint, "an answer without a commit", "a hub's", "check --hub")
        found = Repository(name, info.sha, files, gated=bool(info.gated))
        with TemporaryDirectory(prefix="tritonhost-") as folder:
            contents = {path: _downloaded(api, found, path, folder) for path in SMALL_FILES if path in files}
        return replace(_described(found, contents), counts=_counts(api, found))
    except PlanError:
        raise
    except Exception as error:  # an HTTP library may raise anything
        raise _refusal(error, name, endpoint, revision) from None


def newest_commit(name: str, endpoint: str, revision: str | None = None) -> str:
    """
    The commit that a branch, a tag or a commit of a repository is; None: main.

    Raises PlanError as read_hub does.
    """
    try:
        info = _api(endpoint).model_info(name, revision=revision, timeout=SECONDS)
    except Exception as error:  # an HTTP library may raise anything
        raise _refusal(error, name, endpoint, revision) from None
    if not info.sha or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise PlanError(endpoint, "an answer without a commit", "a hub's", "check --hub")
    return info.sha


def _api(endpoint: str) -> HfApi:
    """A client that keeps nothing and reports nothing."""
    # read when huggingface_hub is imported
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    # imported here: most commands do not need it, and it takes a quarter of a second
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=_token() or False)


def _token() -> str:
    """The operator's token; empty without one. Raises SecretMissing for a variable that holds none."""
    if not any(os.environ.get(source) for source in SOURCES):
        return ""
    return hub_token()


def _downloaded(api: HfApi, found: Repository, path: str, folder: str) -> bytes:
    """One small file. A hub may state any size: the file is measured again where it is read."""
    _check_size(path, found.files[path])
    local = api.hf_hub_download(
        found.name, path, revision=found.revision, local_dir=folder, etag_timeout=SECONDS
    )
    return _bounded(Path(local), path)


def _bounded(file: Path, path: str) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(LARGEST_SMALL_FILE + 1)
    _check_size(path, len(content))
    return content


def _check_size(path: str, size: int) -> None:
    if size > LARGEST_SMALL_FILE:
        mib = LARGEST_SMALL_FILE // 2**20
        raise PlanError(
            path, f"{size // 2**20} MiB", f"at most {mib} MiB", "it describes a model; is it another file?"
        )


def _described(found: Repository, contents: Mapping[str, bytes]) -> Repository:
    tables = {path: _table(content, path) for path, content in contents.items() if path.endswith(".json")}
    template = contents.get("chat_template.jinja", b"")
    return replace(
        found,
        config=tables.get("config.json", {}),
        quantization=tables.get("hf_quant_config.json", {}),
        tokenizer=tables.get("tokenizer_config.json", {}),
        adapter=tables.get("adapter_config.json", {}),
        template=template.decode("utf-8", errors="replace"),
    )


def _table(content: bytes, path: str) -> dict[str, Any]:
    """A JSON file with a table. Raises PlanError for anything else, however large or deep."""
    if content[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise PlanError(
            path, "an HTML page", "a JSON file", "does a login page or a proxy answer? check --hub"
        )
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or _too_deep(data):
        expected = f"a JSON file with a table, of at most {DEEPEST} levels"
        raise PlanError(
            path, "no JSON" if data is None else "another content", expected, "is the file complete?"
        )
    return data


def _too_deep(data: object) -> bool:
    waiting = [(data, 1)]
    while waiting:
        value, level = waiting.pop()
        inner: Iterable[object] = ()
        if isinstance(value, dict):
            inner = value.values()
        elif isinstance(value, list):
            inner = value
        if level > DEEPEST:
            return True
        waiting += [(one, level + 1) for one in inner if isinstance(one, dict | list)]
    return False


def _counts(api: HfApi, found: Repository) -> dict[str, int]:
    """Type -> how many numbers the weights have. Empty where the headers cannot be read: then the forecast counts alone."""
    paths = sorted(found.weight_files)[:_MOST_HEADERS]

    def header(path: str) -> Mapping[str, int]:
        read = api.parse_safetensors_file_metadata(found.name, path, revision=found.revision, timeout=SECONDS)
        return {str(kind): count for kind, count in read.parameter_count.items()}

    # a gated file without access, a file whose header is damaged: the other checks say what matters
    with suppress(Exception), ThreadPoolExecutor(8) as pool:
        return _summed(pool.map(header, paths))
    return {}


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for kind, count in one.items():
            total[kind] = total.get(kind, 0) + count
    return total


def _refusal(error: Exception, name: str, endpoint: str, revision: str | None) -> PlanError:
    """What the hub answered instead, by the names of huggingface_hub's classes, of which the narrower come first."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    shown = one_line(endpoint)
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    token = "a token is set" if any(os.environ.get(source) for source in SOURCES) else "export HF_TOKEN"
    if "GatedRepoError" in kinds:
        then = f"accept its licence at {shown}/{name}, and export HF_TOKEN of that account"
        return PlanError(name, "a gated repository", "access to its files", then, reference="gated")
    if "RepositoryNotFoundError" in kinds:
        then = (
            f"check the name; for a private one, {token}"
            if token[0] == "e"
            else "check the name, and what the token may read"
        )
        return PlanError(
            name,
            f"no such repository on {shown}, or a private one",
            "one that can be read",
            then,
            reference="no-repository",
        )
    if "RevisionNotFoundError" in kinds:
        expected = f"a commit, branch or tag of {name}"
        return PlanError("--revision", revision or "main", expected, reference="no-revision")
    if status == 401:
        return PlanError(
            "HF_TOKEN", "HTTP 401: the hub does not know the token", "one that it knows", reference="gated"
        )
    if status:
        return PlanError(
            shown, f"HTTP {status}", "a hub's answer", "try again, or check --hub", reference="hub-answer"
        )
    if "TimeoutException" in kinds or isinstance(error, TimeoutError):
        expected = f"an answer within {SECONDS} s"
        return PlanError(
            shown, "none", expected, "try again, or name a mirror with --hub", reference="hub-slow"
        )
    if isinstance(error, ValueError | KeyError | TypeError):
        then = "does a login page or a proxy answer? check --hub"
        return PlanError(
            shown,
            "no answer of a hub",
            "JSON, as a hub of Hugging Face answers",
            then,
            reference="hub-answer",
        )
    said = Said(f"{type(error).__name__}: {one_line(str(error))[:200]}")
    return PlanError(
        shown,
        said,
        "a hub that can be reached",
        "name a mirror with --hub, or a directory",
        reference="hub-unreached",
    )


def read_directory(path: Path, name: str | None = None, revision: str | None = None) -> Repository:
    """
    A repository that was downloaded, without a network.

    + name: OWNER/NAME, and revision: its commit; None: those of huggingface_hub's own directory names

    Raises PlanError where they are not known, or a file is not what it should be.
    """
    found = _SNAPSHOT.search(str(path.resolve()))
    name = name or (f"{found['owner']}/{found['name']}" if found else None)
    revision = revision or (found["commit"] if found else None)
    for key, value, expected in (
        ("--known-as", name, "OWNER/NAME, under which the hosts download it"),
        ("--revision", revision, "its commit, 40 hexadecimal digits"),
    ):
        if value is None:
            raise PlanError(key, "nothing", expected, f"{path} does not say it", reference="no-repository")
    assert name is not None and revision is not None
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise PlanError("--revision", revision, "a commit, 40 hexadecimal digits", reference="no-revision")
    try:
        files = {
            one.relative_to(path).as_posix(): one.stat().st_size for one in path.rglob("*") if one.is_file()
        }
        contents = {}
        for small in SMALL_FILES:
            if small in files:
                _check_size(small, files[small])
                contents[small] = _bounded(path / small, small)
    except OSError as error:
        raise PlanError(str(path), error.strerror or "an error", "a directory that can be read") from None
    whole = _described(Repository(name, revision, files), contents)
    return replace(whole, counts=_local_counts(path, whole))


def _local_counts(path: Path, found: Repository) -> dict[str, int]:
    from huggingface_hub import parse_local_safetensors_file_metadata

    with suppress(Exception):  # as in _counts
        headers = (
            parse_local_safetensors_file_metadata(path / file).parameter_count for file in found.weight_files
        )
        return _summed({str(kind): count for kind, count in one.items()} for one in headers)
    return {}
