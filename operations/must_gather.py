"""Everything that a report of a fault needs of one host, in one archive, with secrets taken out. Changes nothing on the host.

python -m operations.must_gather gpu-1                                      # build/must-gather-gpu-1-….tar.gz
python -m operations.must_gather gpu-1/llama --inventory inventories/lab.py

Exit codes: 0 written, 2 bad input, 5 the host was not reached: the archive has what this machine knows.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import io
import json
import os
import platform
import sys
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host

from operations import inputs, preflight, pyinfra_patches
from operations.facts.parse import sections
from operations.intake import gateway_secrets, host_key
from operations.intake.refusing import refusing
from operations.intake.secrets import SecretMissing, hub_token
from operations.plan.audit.redaction import redacted
from operations.plan.errors import PlanError, one_line
from operations.plan.exposure.network import table
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.paths import PROJECT
from operations.plan.preflight import checks
from operations.plan.profile.profiles import load_profile
from operations.plan.units import gib
from operations.remote import host_files
from operations.remote.detached import LOST, shell
from operations.scripts import host_script

PROGRAM = "python -m operations.must_gather"
INVENTORY = "inventories/oci.py"
BAD_INPUT, UNREACHED = 2, 5
LINES = 1000  # of each journal
BYTES = 400_000  # of each section
SECONDS = 300


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog, description="gather what a report of a fault needs; changes nothing"
    )
    parser.add_argument(
        "host", metavar="HOST", help="a host of the inventory, or one of its services: gpu-1/llama"
    )
    parser.add_argument("--inventory", default=INVENTORY, metavar="FILE", help=f"default: {INVENTORY}")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: build")
    inputs.add_data(parser)
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_args(arguments)
    given.limit = [given.host]
    inputs.quieten()
    with refusing():
        state, chosen = preflight.state_and_hosts(given)
        if len(chosen) != 1:
            names = ", ".join(each.name for each in chosen)
            raise PlanError(
                f"HOST {given.host}", names, "one host, or one service of it", reference="several-hosts"
            )
    [host] = chosen
    found = pyinfra_patches.on_all(state, chosen, gathered, SECONDS)[host.name]
    files, reached = found or ({"problem.txt": f"no answer within {SECONDS} s\n"}, False)
    directory = given.output or PROJECT / "build"
    try:
        path, rows = written(host, files, directory)
    except OSError as error:
        print(
            f"tritonhost: {directory}: {error.strerror or error}; name another directory with --output",
            file=sys.stderr,
        )
        return BAD_INPUT
    for name, size, removed in rows:
        print(f"  {name:44}{gib(size):>12}{f'  {removed} removed' if removed else ''}")
    print(f"{path}: look at it before you send it: secrets were taken out by what they look like")
    if not reached:
        print(f"tritonhost: {host.name}: not reached: {files['problem.txt'].strip()}", file=sys.stderr)
    return 0 if reached else UNREACHED


def gathered(host: Host) -> tuple[dict[str, str], bool]:
    """The archive's files, and whether the host was reached."""
    data = pyinfra_patches.data_of(host)
    settings = from_host_data(data, host.name)
    profile = load_profile(settings.model, settings.profile_overrides)
    files = {
        "versions.txt": versions(),
        "inventory.json": json.dumps(data, indent=2, sort_keys=True, default=str) + "\n",
        "profile.json": profile.model_dump_json(indent=2) + "\n",
    }
    try:
        with pyinfra_patches.connected(host):
            _, output = shell(host, script(settings), timeout=SECONDS)
            for name, lines in sections(output).items():
                if name != "end":
                    files[f"host/{name}.txt"] = "\n".join(lines) + "\n"
            files["preflight.txt"] = "\n".join(checks.table(preflight.current_checks())) + "\n"
    except ConnectError as error:
        files["problem.txt"] = (host_key.problem(host, error) or one_line(str(error))) + "\n"
        return files, False
    except (PlanError, PyinfraError, *LOST) as error:
        # what was read until then is of use
        files["problem.txt"] = (one_line(str(error)) or type(error).__name__) + "\n"
    finally:
        if host.connected:
            host.disconnect()
    return files, any(name.startswith("host/") for name in files)


def script(settings: Settings) -> str:
    """The shell text that reads it all."""
    name = settings.service_name
    units = [path.rpartition("/")[2] for path in host_files.paths(settings).units]
    return host_script(
        "must_gather.sh",
        {
            "DATA_ROOT": settings.data_root,
            "STATE_ROOT": settings.state_root,
            "SERVICE": name,
            "TABLE": table(name),
            "UNITS": "\n".join(units),
            "LINES": str(LINES),
            "BYTES": str(BYTES),
        },
    )


def versions() -> str:
    """What runs here."""
    lines = [f"python {platform.python_version()}", platform.platform()]
    for package in ("tritonhost", "pyinfra", "paramiko", "pydantic", "tritonclient", "huggingface_hub"):
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package}: not installed as a package")
    return "\n".join(lines) + "\n"


def secrets_of(host: Host) -> list[str]:
    """Secrets that this machine knows: their exact text is taken out, wherever it stands."""
    known = [value for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if (value := os.environ.get(name))]
    if not os.environ.get(
        "HF_TOKEN_SECRET_OCID"
    ):  # a vault is not asked for a secret that nothing here has read
        with suppress(SecretMissing, PlanError, OSError):
            known.append(hub_token())
    with suppress(PlanError):
        settings = from_host_data(pyinfra_patches.data_of(host), host.name)
        if settings.gateway:
            known += [key for _, key in gateway_secrets.load(settings.gateway, host.name).keys]
    return known


def written(host: Host, files: Mapping[str, str], directory: Path) -> tuple[Path, list[tuple[str, int, int]]]:
    """
    The archive, readable by this user alone, and a row for each file in it: name, bytes, how many secrets were taken out.

    Raises OSError.
    """
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"must-gather-{host.name.replace('/', '+').lstrip('@')}-{at}"
    secrets = secrets_of(host)
    buffer, rows = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for inside, text in sorted(files.items()):
            clean, removed = redacted(text, secrets)
            content = clean.encode(errors="replace")
            entry = tarfile.TarInfo(f"{name}/{inside}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(datetime.now(UTC).timestamp())
            tar.addfile(entry, io.BytesIO(content))
            rows.append((inside, len(content), removed))
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.tar.gz"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(buffer.getvalue())
    return path, rows


if __name__ == "__main__":
    sys.exit(main())
