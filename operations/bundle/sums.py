"""SHA256SUMS: every file of a bundle, in the form that `sha256sum --check` reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from operations.bundle.fetch import BundleError, digest_of

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SHOWN = 5


def files(bundle: Path) -> Iterator[str]:
    """The paths of all files below the bundle, except the list itself."""
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle).as_posix()
        if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
            raise BundleError(
                f"{path}: found a link or a special file, expected plain files; make the bundle again"
            )
        if path.is_file() and name != NAME:
            if "\n" in name or "\\" in name:
                raise BundleError(f"{path}: found a line break or a backslash in a name, expected none")
            yield name


def write(bundle: Path) -> int:
    """Write the list, last and atomically: a bundle without it is not finished. Returns the number of files."""
    lines = [f"{digest_of(bundle / name)}  {name}\n" for name in files(bundle)]
    fresh = bundle / f"{NAME}.part"
    fresh.unlink(missing_ok=True)
    fresh.write_text("".join(lines), encoding="utf-8")
    fresh.replace(bundle / NAME)
    return len(lines)


def listed(bundle: Path) -> dict[str, str]:
    """Path -> SHA-256, from the list. Raises BundleError if there is none."""
    try:
        text = (bundle / NAME).read_text(encoding="utf-8")
    except OSError:
        raise BundleError(f"{bundle}: found no {NAME}, expected a finished bundle; make it again") from None
    found = [_LINE.fullmatch(line) for line in text.splitlines()]
    return {match[2]: match[1] for match in found if match}


def verify(bundle: Path) -> int:
    """Check that exactly the listed files exist and have their hashes. Returns their number. Raises BundleError."""
    wanted = listed(bundle)
    present = set(files(bundle))
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - present)]
    problems += [f"{name} is not listed" for name in sorted(present - wanted.keys())]
    problems += [
        f"{name} is damaged"
        for name in sorted(present & wanted.keys())
        if digest_of(bundle / name) != wanted[name]
    ]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise BundleError(
            f"{bundle}: found {', '.join(problems[:_SHOWN])}{more}, expected what {NAME} lists; copy it again"
        )
    return len(wanted)
