"""One RPM: its name, its content, and its spec file for rpmbuild."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.lab.shell import LabError, run

# The build time of every package: the same inputs give the same metadata on every machine.
BUILD_TIME = "1735689600"

Content = Path | str | bytes


@dataclass(frozen=True)
class File:
    """
    A file's content (or the Path that it is copied from) and mode. A Path to a folder includes the whole folder.

    + content: None is an empty folder
    + owner: user and group; a user of the package's own is made in its `pre`
    + config: an upgrade of the package keeps the operator's changes
    """

    content: Content | None
    mode: int = 0o644
    owner: str = "root"
    config: bool = False


@dataclass(frozen=True)
class Package:
    """One RPM to build. Scripts are POSIX sh, run by rpm with $1 as rpm documents it."""

    name: str
    version: str
    release: str
    summary: str
    description: str
    epoch: int = 0
    files: Mapping[str, File] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    obsoletes: tuple[str, ...] = ()
    pre: str = ""
    post: str = ""
    preun: str = ""
    postun: str = ""


def service(package: Package, *units: str) -> Package:
    """What packages of services do on Enterprise Linux: stop the service on removal, restart it after an upgrade."""
    reload = "systemctl daemon-reload >/dev/null 2>&1 || :"
    stop = f"systemctl --no-reload disable --now {' '.join(units)} >/dev/null 2>&1 || :"
    restart = f"systemctl try-restart {units[0]} >/dev/null 2>&1 || :"
    return replace(
        package,
        post=reload,
        preun=f"if [ $1 -eq 0 ]; then {stop}; fi",
        postun=f"{reload}\nif [ $1 -ge 1 ]; then {restart}; fi",
    )


def _listed(destination: str, file: File) -> str:
    """A file's line in the %files section."""
    kind = "%dir " if file.content is None else "%config(noreplace) " if file.config else ""
    return f"{kind}%attr({file.mode:o}, {file.owner}, {file.owner}) {destination}"


def _stage(package: Package, tree: Path) -> list[str]:
    """Write the files of a package under `tree`; returns the lines of its %files section."""
    lines = []
    for destination, file in sorted(package.files.items()):
        target = tree / destination.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.content is None:
            target.mkdir(exist_ok=True)
        elif isinstance(file.content, Path):
            if not file.content.exists():
                raise LabError(
                    f"package {package.name}: {file.content} is missing; remove the lab's cache and run again"
                )
            if file.content.is_dir():
                shutil.copytree(file.content, target, symlinks=True)
                lines.append(destination)
                continue
            shutil.copyfile(file.content, target)
        elif isinstance(file.content, str):
            target.write_text(file.content)
        else:
            target.write_bytes(file.content)
        target.chmod(file.mode)
        lines.append(_listed(destination, file))
    return lines


def _spec(package: Package, files: list[str]) -> str:
    head = {
        "Name": package.name,
        "Version": package.version,
        "Release": package.release,
        "Summary": package.summary,
        "License": "see the wrapped program",
        "BuildArch": "x86_64",
        "AutoReqProv": "no",
    }
    if package.epoch:
        head["Epoch"] = str(package.epoch)
    lines = [f"{key}: {value}" for key, value in head.items()]
    for key, values in (
        ("Requires", package.requires),
        ("Provides", package.provides),
        ("Conflicts", package.conflicts),
        ("Obsoletes", package.obsoletes),
    ):
        lines += [f"{key}: {value}" for value in values]
    lines += ["%description", package.description, "%install", 'cp -a "%{staged}/." "%{buildroot}/"']
    for section in ("pre", "post", "preun", "postun"):
        if script := getattr(package, section):
            lines += [f"%{section}", script.strip()]
    return "\n".join([*lines, "%files", *files, ""])


def build(package: Package, work: Path) -> Path:
    """The RPM file, unsigned, somewhere under `work`."""
    top = work / f"{package.name}-{package.version}-{package.release}"
    tree = top / "staged"
    tree.mkdir(parents=True)
    files = _stage(package, tree)
    spec = top / "package.spec"
    spec.write_text(_spec(package, files))
    defines = {
        "_topdir": str(top),
        "staged": str(tree),
        "debug_package": "%{nil}",
        "__os_install_post": "%{nil}",
        "_build_id_links": "none",
        "_binary_payload": "w3.zstdio",
        "_buildhost": "lab",
        "use_source_date_epoch_as_buildtime": "1",
        "clamp_mtime_to_source_date_epoch": "1",
        # Debian's rpmbuild keeps its database in the home directory of its user.
        "_dbpath": str(top / "db"),
    }
    arguments = [part for key, value in defines.items() for part in ("--define", f"{key} {value}")]
    run(
        "rpmbuild",
        "-bb",
        "--quiet",
        *arguments,
        spec,
        env={"SOURCE_DATE_EPOCH": BUILD_TIME, "HOME": os.fspath(top)},
    )
    built = list((top / "RPMS").rglob("*.rpm"))
    if len(built) != 1:
        raise LabError(f"rpmbuild made {len(built)} files for {package.name}, expected 1")
    return built[0]
