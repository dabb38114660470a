"""`tritonhost init`: the files of a new project.

What the operator changes is copied. What belongs to the code is a stub that runs the installed version's file, so that an
upgrade of the package is an upgrade of every project.
"""

from __future__ import annotations

import re
from pathlib import Path

import tritonhost

# Files of the tree that are the operator's from now on
COPIED = ("inventories/group_data/all.py", "inventories/group_data/oci.py", "inventories/ssh_config")

_GUARD = """\
try:
    import tritonhost
except ModuleNotFoundError:
    import sys

    print(
        f"tritonhost: {__file__}: found no package tritonhost in {sys.prefix}, expected the environment that it is installed in; "
        "run this command with that environment's programs",
        file=sys.stderr,
    )
    raise SystemExit(2) from None
"""

_CONFIG = f'''\
"""Read by pyinfra before the inventory. This runs config.py of the installed tritonhost."""

{_GUARD}
tritonhost.run("config.py", globals())
'''

_DEPLOY = '''\
"""The stages of the installed tritonhost, in its order.

    pyinfra inventories/oci.py deploy.py --dry -y    # what would change
    pyinfra inventories/oci.py deploy.py -y          # converge; safe to run again
"""

import tritonhost

tritonhost.run("deploy.py", globals())
'''

_INVENTORY = '''\
"""GPU hosts on OCI, from the variable OCI_HOSTS or from oci.toml beside this file; read by the installed tritonhost."""

import tritonhost

tritonhost.run("inventories/oci.py", globals())
'''

_OPERATIONS = f'''\
"""The operations of the installed tritonhost, for commands such as

    pyinfra -y inventories/oci.py operations.release.status
    python -m operations.plan profiles
"""

from pathlib import Path

{_GUARD}
tritonhost.use(Path(__file__).resolve().parents[1])
__path__ = [str(tritonhost.tree() / "operations")]
'''

_HOSTS = """\
# The hosts. Or export OCI_HOSTS=gpu-1=10.0.0.11,gpu-2=10.0.0.12
#
# [hosts.gpu-1]
# address = "10.0.0.11"
# model = "gpt2-medium"     # any setting of group_data/all.py, for this host only
"""

_IGNORED = """\
__pycache__/
/build/
/pyinfra-debug.log
/inventories/oci.toml
/inventories/oci_ssh_config
"""


class NotWritten(Exception):
    """The project was not written; the text says why, in one line."""


def shipped_models() -> list[str]:
    """The names of the profiles that are shipped."""
    return sorted(path.stem for path in (tritonhost.tree() / "inventories" / "models").glob("*.toml"))


def files(model: str) -> dict[str, str]:
    """
    A project's files: path -> text.

    + model: the profile that the project begins with, by its name
    """
    tree = tritonhost.tree()
    profile = f"inventories/models/{model}.toml"
    found = {name: (tree / name).read_text(encoding="utf-8") for name in (*COPIED, profile)}
    settings = COPIED[0]
    found[settings], count = re.subn(r'(?m)^model = ".*"$', f'model = "{model}"', found[settings])
    if count != 1:
        raise NotWritten(f"{settings}: found {count} lines of model, expected one; reinstall tritonhost")
    return {
        "config.py": _CONFIG,
        "deploy.py": _DEPLOY,
        "operations/__init__.py": _OPERATIONS,
        "inventories/oci.py": _INVENTORY,
        "inventories/oci.toml": _HOSTS,
        ".gitignore": _IGNORED,
        **found,
    }


def write(directory: Path, model: str) -> list[str]:
    """
    The project is in the directory; returns the paths of its files.

    Raises NotWritten, before anything is written, where the profile is unknown or one of the files exists.
    """
    if model not in shipped_models():
        raise NotWritten(f"--model: found {model}, expected one of {', '.join(shipped_models())}")
    wanted = files(model)
    try:
        for name in wanted:
            if (directory / name).exists() or (directory / name).is_symlink():
                raise NotWritten(
                    f"{directory}: found {name}, expected a directory without it; name another directory"
                )
        for name, text in wanted.items():
            place = directory / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise NotWritten(
            f"{error.filename or directory}: found {found}, expected a directory that can be written; name another one"
        ) from None
    return sorted(wanted)
