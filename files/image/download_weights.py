"""Download one revision of a Hugging Face repository and verify every file; runs inside the serving image.

    python3 download_weights.py REQUEST.json OUTPUT_DIRECTORY

REQUEST.json: type (weights or dataset), repository, revision (40-hex commit), include and exclude patterns, endpoint. The token, where one is
needed, is a file `token` beside REQUEST.json. What an interrupted download left in the directory is continued:
files that are complete are not fetched again, and huggingface_hub resumes the one that is not. huggingface_hub
itself checks sizes only, so the hashes the hub states are compared here. Python 3.10, huggingface_hub 0.2x and later.
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
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
PROGRAMS = (".py", ".pyc", ".so", ".sh")
ATTEMPTS = 6
PAUSE_SECONDS = 300  # the longest that a hub may ask for
FULL = (errno.ENOSPC, errno.EDQUOT)
# What the host itself refuses: nothing that passes by waiting
REFUSED_HERE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
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
    os.environ["HF_HUB_DISABLE_XET"] = "1"  # its own transfer protocol, which mirrors do not speak
    os.environ["HF_HOME"] = "/tmp/huggingface"
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
                        f"{gib(free)} free ({device_of(output)}); what was fetched is kept; run again to resume"
                    )
                return refused(name, revision, error, token is not None, request["endpoint"])
            if not matches(path, entry):
                os.unlink(path)
                return fail(
                    f"{name}: {entry.rfilename} does not have the checksum the hub states; fetched again next run"
                )
        if is_pointer(path):
            os.unlink(path)
            return fail(
                f"{name}: {entry.rfilename} is a git-lfs pointer, expected its content; {request['endpoint']} lacks LFS objects"
            )
        done += entry.size or 0
    keep = {os.path.join(output, f.rfilename) for f in wanted}
    shutil.rmtree(os.path.join(output, ".cache"), ignore_errors=True)
    for directory, _, names in os.walk(output):
        for other in names:
            if os.path.join(directory, other) not in keep:
                os.unlink(os.path.join(directory, other))
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
        # code of the repository: only what a person has read at this very commit
        reviewed = request.get("code_revision") == request["revision"]
        return reviewed and path.endswith(".py") and not any_of(request["exclude"])
    return any_of(request["include"]) and not any_of(request["exclude"])


def fetch(api: Any, kind: str, name: str, revision: str, path: str, output: str) -> None:
    """One file; a broken transfer is resumed, with pauses that grow."""
    patiently(lambda: api.hf_hub_download(name, path, repo_type=kind, revision=revision, local_dir=output))


def patiently(call: Callable[[], Any]) -> Any:
    """Repeat what fails for a passing reason: no answer, too many requests, the server's own fault."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            passing = status in (408, 425, 429) or (status or 500) >= 500
            if type(error).__name__ in ("RevisionNotFoundError", "RepositoryNotFoundError", "GatedRepoError"):
                passing = False
            if not passing or attempt == ATTEMPTS or number_of(error) in REFUSED_HERE:
                raise
            pause = asked_for(getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", ""))
            if pause is None:
                pause = min(2**attempt, 60)
            reason = f"HTTP {status}" if status else reason_of(error)
            say(f"attempt {attempt} of {ATTEMPTS}: {reason}; again in {pause} s")
            time.sleep(pause)
    raise AssertionError("unreachable")


def asked_for(retry_after: str) -> int | None:
    """The seconds that a Retry-After wants, a number of them or a date, or None without one."""
    if retry_after.isdigit():
        return min(int(retry_after), PAUSE_SECONDS)
    try:
        seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return min(max(int(seconds) + 1, 0), PAUSE_SECONDS)


def first_cause(error: BaseException) -> BaseException:
    """What the error was raised from: huggingface_hub wraps what its HTTP library says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def number_of(error: BaseException) -> int | None:
    """The operating system's number of the error, if it has one."""
    return getattr(first_cause(error), "errno", None)


def reason_of(error: BaseException) -> str:
    """What went wrong, in one line without the query of a URL, which may be signed."""
    cause = first_cause(error)
    said = re.sub(r"\?\S*", "", " ".join(str(cause).split()))[:200]
    return f"{type(cause).__name__}: {said}" if said else type(cause).__name__


def matches(path: str, entry: Any) -> bool:
    """Whether the file is there with the hash the hub states: SHA-256 for LFS files, git's blob id for others."""
    if not os.path.isfile(path) or (entry.size is not None and os.path.getsize(path) != entry.size):
        return False
    lfs = entry.lfs
    if lfs:
        wanted = lfs["sha256"] if isinstance(lfs, dict) else lfs.sha256
        return digest(path, hashlib.sha256()) == str(wanted)
    return digest(path, hashlib.sha1(b"blob %d\0" % os.path.getsize(path))) == str(entry.blob_id)


def digest(path: str, hasher: Any) -> str:
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            hasher.update(chunk)
    return str(hasher.hexdigest())


def is_pointer(path: str) -> bool:
    """A mirror that was cloned without git-lfs hands out pointers, and states their hashes."""
    with open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER


def device_of(directory: str) -> str:
    """The device a directory lies on, which the host's df names too: the mount point is another in a container."""
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
    """One line for what the hub said; never its URL with a query, never the token."""
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
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
    found = f"HTTP {status}" if status else reason_of(error)
    return fail(f"{name}: {endpoint}: {found}; expected the hub to answer; run again to resume")


def gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def say(text: str) -> None:
    print(f"weights: {text}", flush=True)


def fail(text: str) -> int:
    print(f"weights: {text}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
