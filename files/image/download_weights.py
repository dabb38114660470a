"""Download one revision of a Hugging Face repository and verify every file. Runs inside the serving image.

    python3 download_weights.py REQUEST.json OUTPUT_DIRECTORY

REQUEST.json: type (weights, dataset or description), repository, revision (40-hex commit), include and exclude patterns,
endpoint. The token, if one is needed, is a file `token` beside REQUEST.json. An interrupted download is continued: complete
files are not downloaded again, and huggingface_hub resumes the incomplete one. huggingface_hub itself checks only sizes, so
the hashes that the hub states are compared here. A description is the hub's information without the weights: the files in
DESCRIBING, and hub-sizes.json with the size of each file of weights. Python 3.10, huggingface_hub 0.2x and later.

Exit code: 65 if another run would fail too until something is changed; 1 if another run may succeed.
"""

import errno
import fnmatch
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection
from email.utils import parsedate_to_datetime
from typing import Any

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
PROGRAMS = (".py", ".pyc", ".so", ".sh")
DESCRIBING = ("config.json", "hf_quant_config.json")
SIZES = "hub-sizes.json"
ATTEMPTS = 6
MOST_SHARDS = 10_000
PAUSE_SECONDS = 300  # the longest that a hub may ask for
FULL = (errno.ENOSPC, errno.EDQUOT)
# What the host itself refuses: waiting does not help
REFUSED_HERE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
REFUSED = 65
# An answer that is not a hub's: retrying does not help. By name, because huggingface_hub has moved these classes.
NOT_A_HUB = ("FileMetadataError", "JSONDecodeError", "TooManyRedirects")
NOT_ALLOWED = ("RevisionNotFoundError", "RepositoryNotFoundError", "GatedRepoError", "EntryNotFoundError")
CERTIFICATE = ("certificate verify failed", "certificate_verify_failed", "hostname mismatch")
INDEX = ".safetensors.index.json"
SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.safetensors$")
POINTER = b"version https://git-lfs.github.com/spec/"


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    output = sys.argv[2]
    token_file = os.path.join(os.path.dirname(sys.argv[1]), "token")
    token = None
    if os.path.exists(token_file):
        with open(token_file, encoding="utf-8") as file:
            token = file.read().strip()
    # Read by huggingface_hub when it is imported.
    os.environ["HF_ENDPOINT"] = request["endpoint"]
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_XET"] = "1"  # its own transfer protocol, which mirrors do not support
    # on the disk of the weights: /tmp is memory. It is removed with the rest of .cache at the end
    os.environ["HF_HOME"] = os.path.join(output, ".cache", "home")
    os.environ["PYTHONUNBUFFERED"] = "1"
    from huggingface_hub import HfApi

    api = HfApi(endpoint=request["endpoint"], token=token or False)
    name, revision = request["repository"], request["revision"]
    kind = "dataset" if request["type"] == "dataset" else "model"
    try:
        info = patiently(lambda: api.repo_info(name, revision=revision, repo_type=kind, files_metadata=True))
    except Exception as error:
        return refused(name, revision, error, token is not None, request["endpoint"])
    if info.sha != revision:
        return fail(f"{name}: the hub answers with commit {info.sha}, expected {revision}")
    pickles = [f.rfilename for f in info.siblings if f.rfilename.lower().endswith(PICKLES)]
    if (
        kind == "model"
        and pickles
        and not request["allow_pickle"]
        and not any(f.rfilename.endswith(".safetensors") for f in info.siblings)
    ):
        return fail(
            f"{name}: found weights as pickles only at {revision} ({', '.join(sorted(pickles)[:3])}), expected "
            "*.safetensors, because loading a pickle runs the code in it; choose a repository or a weights.revision "
            "that has them"
        )
    wanted = [f for f in info.siblings if selected(f.rfilename, request)]
    if not wanted:
        return fail(f"{name}: no file at {revision} matches include; expected at least one")
    if (
        kind == "model"
        and not request["allow_pickle"]
        and not any(f.rfilename.endswith(".safetensors") for f in wanted)
    ):
        return fail(
            f"{name}: no *.safetensors at {revision}, expected weights in that format; see weights.include"
        )
    if unstated := [f.rfilename for f in wanted if checksum(f) is None]:
        return fail(
            f"{name}: {request['endpoint']}: this mirror states no checksum of {', '.join(sorted(unstated)[:3])}, "
            "expected one of every file (?blobs=true), because nothing else tells a damaged file; choose another "
            "hub_endpoint"
        )
    # the index, which lists the other files, comes first
    wanted.sort(key=lambda f: (not f.rfilename.endswith(INDEX), f.rfilename))
    listed = {f.rfilename for f in wanted}
    if kind == "model" and (gone := shards_left_out(listed)):
        return fail(incomplete(name, gone))
    sizes = {f.rfilename: f.size for f in wanted if f.rfilename.endswith(".safetensors") and f.size}
    if request["type"] == "description":
        wanted = [f for f in info.siblings if f.rfilename in DESCRIBING]
    total = sum(f.size or 0 for f in wanted)
    free = shutil.disk_usage(output).free + size_of(output)
    if free < total * 1.05:
        return fail(
            f"{name}: needs {gib(total)}, the file system of the data root has {gib(free)} free ({device_of(output)})"
        )
    done = 0
    for number, entry in enumerate(wanted, start=1):
        path = os.path.join(output, entry.rfilename)
        if not matches(path, entry):
            if os.path.exists(path):
                say(f"{entry.rfilename}: damaged or of another revision, fetched again")
                os.unlink(path)
            say(
                f"{number}/{len(wanted)} {entry.rfilename} ({gib(entry.size or 0)}; {gib(done)} of {gib(total)} done)"
            )
            try:
                fetch(api, kind, name, revision, entry.rfilename, output)
            except Exception as error:
                if number_of(error) in FULL:
                    left = total - done
                    free = shutil.disk_usage(output).free
                    return fail(
                        f"{name}: {entry.rfilename}: needs {gib(left)} more, the file system of the data root has "
                        f"{gib(free)} free ({device_of(output)}); what was fetched is kept; run again to resume",
                        1,
                    )
                return refused(name, revision, error, token is not None, request["endpoint"])
            if not matches(path, entry):
                os.unlink(path)
                return fail(
                    f"{name}: {entry.rfilename} does not have the checksum the hub states; fetched again next run",
                    1,
                )
        if is_pointer(path):
            os.unlink(path)
            return fail(
                f"{name}: {entry.rfilename} is a git-lfs pointer, expected its content; {request['endpoint']} lacks LFS objects"
            )
        if kind == "model" and entry.rfilename.endswith(INDEX):
            try:
                gone = shards_not_there(path, entry.rfilename, listed)
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                return fail(
                    f"{name}: {entry.rfilename}: found no list of its files ({reason_of(error)}), expected a JSON "
                    "object with weight_map; choose another weights.revision"
                )
            if gone:
                return fail(incomplete(name, gone))
        done += entry.size or 0
    keep = {os.path.join(output, f.rfilename) for f in wanted}
    if request["type"] == "description":
        keep.add(os.path.join(output, SIZES))
        with open(os.path.join(output, SIZES), "w", encoding="utf-8") as file:
            json.dump(sizes, file)
    shutil.rmtree(os.path.join(output, ".cache"), ignore_errors=True)
    for directory, _, names in os.walk(output):
        for other in names:
            if os.path.join(directory, other) not in keep:
                os.unlink(os.path.join(directory, other))
    if request["type"] == "description":
        say(f"{len(sizes)} files of weights, {gib(sum(sizes.values()))}, in the repository")
        return 0
    say(f"{len(wanted)} files, {gib(total)}, every checksum as the hub states it")
    return 0


def selected(path: str, request: dict[str, Any]) -> bool:
    if path.startswith("/") or ".." in path.split("/"):
        return False
    if path.lower().endswith(PICKLES) and not request["allow_pickle"]:
        return False

    def any_of(patterns: list[str]) -> bool:
        return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)

    if path.lower().endswith(PROGRAMS):
        # code of the repository: only what has been reviewed at this commit
        reviewed = request.get("code_revision") == request["revision"]
        return reviewed and path.endswith(".py") and not any_of(request["exclude"])
    return any_of(request["include"]) and not any_of(request["exclude"])


def shards_left_out(names: Collection[str]) -> list[str]:
    """The missing files of a series named -00001-of-00004.safetensors, by the names of the others."""
    found = [match.groups() for name in names if (match := SHARD.match(name))]
    return sorted(
        wanted
        for prefix, width, count in {(prefix, len(number), count) for prefix, number, count in found}
        for n in range(1, min(int(count), MOST_SHARDS) + 1)
        if (wanted := f"{prefix}-{n:0{width}d}-of-{count}.safetensors") not in names
    )


def shards_not_there(path: str, index: str, names: Collection[str]) -> list[str]:
    """The files that an index of safetensors lists and that are not among the names."""
    with open(path, encoding="utf-8") as file:
        said = {str(value) for value in json.load(file)["weight_map"].values()}
    directory = index[: index.rfind("/") + 1]
    gone = sorted(f"{directory}{shard}" for shard in said if f"{directory}{shard}" not in names)
    others = [
        n for n in names if n.endswith(".safetensors") and n.rpartition("/")[0] == directory.rstrip("/")
    ]
    # if include excludes every file of an index, it belongs to another format, beside a complete one
    return [] if len(gone) == len(said) and others else gone


def incomplete(name: str, gone: list[str]) -> str:
    """The line for required files that are missing."""
    return (
        f"{name}: {len(gone)} files of the weights are not there or not included ({', '.join(gone[:3])}), expected "
        "every one that the others name; see weights.include and weights.exclude, or choose another weights.revision"
    )


def fetch(api: Any, kind: str, name: str, revision: str, path: str, output: str) -> None:
    """Download one file; a broken transfer is resumed, with increasing pauses."""
    patiently(lambda: api.hf_hub_download(name, path, repo_type=kind, revision=revision, local_dir=output))


def patiently(call: Callable[[], Any]) -> Any:
    """Retry temporary failures: no answer, too many requests, the server's own fault."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except Exception as error:
            if attempt == ATTEMPTS or not passes(error):
                raise
            response = response_of(error)
            status = getattr(response, "status_code", None)
            pause = asked_for(getattr(response, "headers", {}).get("Retry-After", ""))
            if pause is None:
                pause = min(2**attempt, 60)
            reason = f"HTTP {status}" if status else reason_of(error)
            say(f"attempt {attempt} of {ATTEMPTS}: {reason}; again in {pause} s")
            time.sleep(pause)
    raise AssertionError("unreachable")


def asked_for(retry_after: str) -> int | None:
    """The seconds of a Retry-After header, which is a number or a date; None without one."""
    if retry_after.isdigit():
        return min(int(retry_after), PAUSE_SECONDS)
    try:
        seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return min(max(int(seconds) + 1, 0), PAUSE_SECONDS)


def passes(error: BaseException) -> bool:
    """Whether it is temporary: no answer, too many requests, the server's own fault."""
    kinds = {kind.__name__ for each in causes(error) for kind in type(each).__mro__}
    status = getattr(response_of(error), "status_code", None)
    if status is not None:
        return (status in (408, 425, 429) or status >= 500) and not kinds.intersection(NOT_ALLOWED)
    said = " ".join(str(each) for each in causes(error)).lower()
    if kinds.intersection(NOT_A_HUB) or any(words in said for words in CERTIFICATE):
        return False
    # an error in the answer or in the request, not in the network, whose errors have other classes
    if isinstance(first_cause(error), ValueError | TypeError | LookupError | AttributeError):
        return False
    return number_of(error) not in REFUSED_HERE


def causes(error: BaseException) -> list[BaseException]:
    """The error and its chain of causes: huggingface_hub wraps errors in others."""
    found = [error]
    while (cause := found[-1].__cause__) is not None:
        found.append(cause)
    return found


def response_of(error: BaseException) -> Any:
    """The hub's answer that an error is about; None if there was none."""
    return next((r for e in causes(error) if (r := getattr(e, "response", None)) is not None), None)


def first_cause(error: BaseException) -> BaseException:
    """The innermost cause: huggingface_hub wraps the errors of its HTTP library."""
    return causes(error)[-1]


def number_of(error: BaseException) -> int | None:
    """The operating system's number of the error, if it has one."""
    return getattr(first_cause(error), "errno", None)


def reason_of(error: BaseException) -> str:
    """The problem, in one line without the query of a URL, which may be signed."""
    cause = first_cause(error)
    said = re.sub(r"\?\S*", "", " ".join(str(cause).split()))[:200]
    return f"{type(cause).__name__}: {said}" if said else type(cause).__name__


def matches(path: str, entry: Any) -> bool:
    """Whether the file exists with the hash that the hub states: SHA-256 for LFS files, git's blob id for others."""
    if not os.path.isfile(path) or (entry.size is not None and os.path.getsize(path) != entry.size):
        return False
    if entry.lfs:
        return digest(path, hashlib.sha256()) == checksum(entry)
    return digest(path, hashlib.sha1(b"blob %d\0" % os.path.getsize(path))) == checksum(entry)


def checksum(entry: Any) -> str | None:
    """The hash that the hub states for a file; None for mirrors without blob metadata."""
    lfs = getattr(entry, "lfs", None)
    if lfs:
        stated = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    else:
        stated = getattr(entry, "blob_id", None)
    return str(stated) if stated else None


def digest(path: str, hasher: Any) -> str:
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            hasher.update(chunk)
    return str(hasher.hexdigest())


def is_pointer(path: str) -> bool:
    """Whether the file is a pointer: a mirror that was cloned without git-lfs serves pointers, with their hashes."""
    with open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER


def device_of(directory: str) -> str:
    """The device of a directory, which the host's df names too; the mount point in a container is another one."""
    place, device = "", ""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            fields, _, source = line.partition(" - ")
            mounted = fields.split()[4]
            if os.path.realpath(directory).startswith(mounted) and len(mounted) >= len(place):
                place, device = mounted, source.split()[1]
    return device


def size_of(directory: str) -> int:
    return sum(os.path.getsize(os.path.join(d, n)) for d, _, names in os.walk(directory) for n in names)


def refused(name: str, revision: str, error: Exception, had_token: bool, endpoint: str = "the hub") -> int:
    """Print one line for the hub's answer, never its URL with a query, never the token."""
    kind = next((k for e in causes(error) if (k := type(e).__name__) in NOT_ALLOWED), type(error).__name__)
    status = getattr(response_of(error), "status_code", None)
    if kind == "RevisionNotFoundError":
        return fail(
            f"{name}: found no revision {revision}, expected a commit of this repository; check weights.revision"
        )
    if status == 401 or (kind == "GatedRepoError" and not had_token):
        found = "a token the hub does not know" if had_token else "no token"
        return fail(f"{name}: HTTP 401, found {found}, expected one with access; export HF_TOKEN")
    if status == 403 or kind == "GatedRepoError":
        return fail(
            f"{name}: HTTP 403, the token has no access to this gated model; accept its licence on its page"
        )
    if kind == "RepositoryNotFoundError":
        return fail(f"{name}: HTTP 404, no such repository for this token; check weights.repository")
    if status is None and {type(e).__name__ for e in causes(error)}.intersection(NOT_A_HUB):
        return fail(
            f"{name}: {endpoint}: not a hub's answer ({what_came(error)}), expected one of a Hugging Face hub; check "
            "hub_endpoint, and whether a login page or a proxy answers in its place"
        )
    found = f"HTTP {status}" if status else reason_of(error)
    if not passes(error):
        return fail(f"{name}: {endpoint}: {found}, expected the hub to answer; trying again does not help")
    return fail(f"{name}: {endpoint}: {found}; expected the hub to answer; run again to resume", 1)


def what_came(error: BaseException) -> str:
    """What answered instead of a hub, in a few words."""
    text = next((d for e in causes(error) if isinstance(d := getattr(e, "doc", None), str)), None)
    if text is not None:
        return "HTML" if text.lstrip()[:1] == "<" else "no JSON"
    said = str(first_cause(error)).lower()
    if "x-repo-commit" in said:
        return "no header X-Repo-Commit"
    return "no header ETag" if "etag" in said else type(first_cause(error)).__name__


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def say(text: str) -> None:
    print(f"weights: {text}", flush=True)


def fail(text: str, code: int = REFUSED) -> int:
    print(f"weights: {text}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
