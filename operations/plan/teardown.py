"""What a teardown takes off a host, what it puts back, and what stays and why: from what the host was found to have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from operations.plan.artifacts import sharing
from operations.plan.artifacts.artifact import DIRECTORIES
from operations.plan.balancing import load_balancer
from operations.plan.errors import PlanError
from operations.plan.exposure import firewall, network
from operations.plan.machine import daemon_json
from operations.plan.machine.host_record import DOCKER_STATE, EMPTIED, GROUP, OVERWRITTEN
from operations.plan.machine.local_disks import SENTINEL
from operations.plan.machine.packages import PACKAGE_KEYS
from operations.plan.machine.selinux import NAMES_OF_RUN, UNIT_FILES
from operations.plan.machine.version_locks import LOCK_LIST, with_locks
from operations.plan.units import gib

# The first words of every file that this tool writes below /etc; its scripts there have no such line.
HEADER = "# Written by tritonhost"
# What this tool makes in a data root, beside hidden files of its own.
KNOWN = (
    *DIRECTORIES.values(),
    *(
        "images",
        "verdicts",
        "measurements",
        "caches",
        "services",
        "database",
        "gateway",
        "door",
        "monitoring",
    ),
    *("current", "previous", "dcgm-counters.csv", SENTINEL),
)
# The same of hosts that serve no model, by the name of what they run.
WITHOUT_MODEL = {
    "monitoring": ("images", "config", "prometheus", "alertmanager", "grafana", "administered"),
    load_balancer.NAME: (*load_balancer.FILES, load_balancer.FRESH, ".before"),
}
ABSENT = "absent:"
UNIT_TITLE = "teardown"
HOLDER = "a teardown of this host"  # what teardown.sh says of itself in the lock
# one line of the host's record, or of an inventory: service, data root
Place = tuple[str, str]
Fate = Literal["goes", "back", "stays", "refused"]
# goes with all it has; was there before, and is as it was then; is kept as a deploy has made it
Docker = Literal["goes", "before", "kept"]
# of one service, in the order of their stop: first those that clients reach, last what the others require
_SUFFIXES = (
    *("-gateway", "-door", "-front", "-next", "", "-metrics"),
    *("-node-exporter", "-dcgm-exporter", "-grafana", "-alertmanager", "-prometheus", "-database", "-guard"),
)


class Row(NamedTuple):
    """One line of the table that is shown before anything is changed."""

    fate: Fate
    what: str
    detail: str


@dataclass(frozen=True)
class DataRoot:
    """
    One data root.

    + size: bytes. + documents: a directory of a database; empty: none
    + mount: the unit that mounts local disks there, with `absent:` in front where they are not mounted; empty: none
    + others: names in it that are not this tool's
    """

    path: str
    size: int
    mount: str
    documents: str
    others: tuple[str, ...]

    @property
    def unit(self) -> str:
        """The unit that mounts local disks there."""
        return self.mount.removeprefix(ABSENT)


@dataclass(frozen=True)
class Survey:
    """
    What files/host/survey.sh found.

    + began: `bare` or `used`, the record's word of the host before this tool; empty: no record
    + going: what an interrupted teardown had begun to take away after it had looked at it: docker, disks
    + came, went: names of packages that came with this tool; full names of those that had to make room
    + needed: what other installed packages need of those that came
    + foreign: containers, volumes and images of docker that are not this tool's
    + busy: work of this tool that runs, or who holds the host's lock
    """

    began: str
    going: frozenset[str]
    there: frozenset[str]
    places: tuple[Place, ...]
    came: tuple[str, ...]
    installed: tuple[str, ...]
    went: tuple[str, ...]
    booleans: tuple[str, ...]
    copies: tuple[str, ...]
    files: tuple[str, ...]
    active: frozenset[str]
    busy: tuple[str, ...]
    roots: tuple[DataRoot, ...]
    tables: tuple[str, ...]
    locks: tuple[str, ...]
    docker: bool
    foreign: tuple[str, ...]
    needed: tuple[str, ...]
    selinux: bool

    @property
    def at_it(self) -> bool:
        """An earlier teardown goes on: it is followed."""
        return any(line.startswith(f"tritonhost-{UNIT_TITLE}-") for line in self.busy) and all(
            line.startswith(f"tritonhost-{UNIT_TITLE}-") or line == HOLDER for line in self.busy
        )

    @property
    def empty(self) -> bool:
        """Nothing of this tool is there."""
        return not (self.began or self.files or self.tables or self.own_roots)

    @property
    def own_roots(self) -> list[DataRoot]:
        """Those that have something of this tool in them, or a mount."""
        return [root for root in self.roots if root.mount or root.size > 65536 or root.documents]


def survey(found: Mapping[str, Sequence[str]], inventory: Sequence[Place]) -> Survey:
    """
    Reads the sections of files/host/survey.sh.

    + inventory: the services that the inventory names

    Raises PlanError if the host did not say all of it.
    """
    if "end" not in found:
        raise PlanError("survey of the host", "no end", "all of its sections", "run it again")
    places = [*inventory, *(_place(line) for line in found["places"] if line.count("\t") == 1)]
    return Survey(
        began=next(iter(found["began"]), ""),
        going=frozenset(found["going"]),
        there=frozenset(found["there"]),
        places=tuple(dict.fromkeys(places)),
        came=tuple(found["came"]),
        installed=tuple(found["installed"]),
        went=tuple(line.split("\t")[1] for line in found["went"] if "\t" in line),
        booleans=tuple(dict.fromkeys(found["booleans"])),
        copies=tuple(found["copies"]),
        files=tuple(dict.fromkeys(found["files"])),
        active=frozenset(found["active"]),
        busy=tuple(line for line in found["busy"] if line),
        roots=tuple(_root(line) for line in found["roots"] if line.count("\t") == 4),
        tables=tuple(found["tables"]),
        locks=tuple(found["locks"]),
        docker="answers" in found["docker"],
        foreign=tuple(_foreign(found["docker"])),
        needed=tuple(found["needed"]),
        selinux="yes" in found["selinux"],
    )


def _place(line: str) -> Place:
    service, data_root = line.split("\t")
    return service, data_root


def _root(line: str) -> DataRoot:
    path, size, mount, documents, others = line.split("\t")
    return DataRoot(
        path,
        int(size) if size.isdecimal() else 0,
        mount,
        documents,
        tuple(name for name in others.split(",") if name),
    )


def _foreign(lines: Sequence[str]) -> Iterator[str]:
    """Containers, volumes and tagged images that are not this tool's."""
    rows = [line.split("\t") for line in lines if "\t" in line]
    ours = {row[2] for row in rows if row[0] == "image" and row[1].startswith("tritonhost/")}
    own_volumes = {row[1] for row in rows if row[0] == "own"}
    for kind, name, *rest in rows:
        own = {
            "container": name.startswith("tritonhost-") or "tritonhost." in "".join(rest),
            "volume": name in own_volumes,
            # one without a name was pulled by its digest, as this tool pulls
            "image": name.startswith("tritonhost/") or "<none>" in name or bool({*rest} & ours),
        }
        if not own.get(kind, True):
            yield f"{kind} {name}"


@dataclass(frozen=True)
class Teardown:
    """
    What is done, and the table that is shown before.

    + problem: why nothing is done; None: it can be done
    """

    rows: tuple[Row, ...]
    variables: Mapping[str, str]
    locks: str
    problem: PlanError | None = None


def teardown(
    found: Survey,
    runtime: Sequence[str],
    repositories: Mapping[str, str],
    options: Sequence[str],
    documents_too: bool = False,
    keep_packages: bool = False,
) -> Teardown:
    """
    What a teardown of this host does.

    + runtime: the names of docker's and the toolkit's packages
    + repositories: path of a repository's file -> its name in dnf
    + options: of dnf, as a deploy gives them to it
    + documents_too: the documents of a database may go
    + keep_packages: packages stay, and docker with its settings
    """
    docker = _docker(found, keep_packages)
    packages = [name for name in found.came if docker != "kept" or not _of_runtime(name, runtime)]
    if keep_packages:
        packages = []
    copies = [] if docker == "kept" else [*found.copies]
    left = {*_mounts(found), *(OVERWRITTEN if docker == "kept" else copies)}
    files = [path for path in found.files if path not in left and not _in_data_root(path, found)]
    back = [] if docker == "kept" else [*found.went]
    rest = with_locks(found.locks, {}) if not keep_packages else [*found.locks]
    variables = {
        "UNITS": "\n".join(_units(found)),
        "FILES": "\n".join(files),
        "TABLES": "\n".join(
            dict.fromkeys([*found.tables, *(network.table(service) for service, _ in found.places)])
        ),
        "MARKS": "\n".join(sorted({firewall.mark(service) for service, _ in found.places})),
        "ROOTS": "\n".join(_root_line(root, found) for root in found.roots),
        "KNOWN": "\n".join(KNOWN),
        "THERE": "\n".join(sorted(found.there)),
        # docker that stays although this tool brought it may go later
        "FORGET": "" if docker == "kept" and "docker-ce" in found.came else "yes",
        "PATTERNS": "\n".join(_patterns(found)),
        "BOOLEANS": "\n".join(found.booleans),
        "DOCKER": "goes" if docker == "goes" else "stays",
        "DAEMON": "" if docker == "kept" or daemon_json.PATH in copies else daemon_json.PATH,
        "PACKAGES": "\n".join(packages),
        "BACK": "\n".join(back),
        "OPTIONS": "\n".join(options),
        "COPIES": "\n".join(copies),
        "STATE": "\n".join(path for path in DOCKER_STATE if path not in found.there),
        "EMPTIED": "\n".join(path for path in EMPTIED if path not in found.there),
        "GROUP": "" if f"group:{GROUP}" in found.there else GROUP,
        "REPOSITORIES": "\n".join(path for path in (*repositories, *PACKAGE_KEYS) if path in files),
        "CACHES": "\n".join(repositories.values() if docker == "goes" else ()),
        "LOCK_LIST": LOCK_LIST,
    }
    rows = [*_rows(found, docker, packages, back, keep_packages)]
    problem = _problem(found, documents_too)
    if problem:
        rows.append(Row("refused", problem.where or "host", str(problem)))
    locks = "# written by a teardown\n" + "".join(f"{line}\n" for line in rest)
    return Teardown(tuple(rows), variables, locks, problem)


def _docker(found: Survey, keep_packages: bool) -> Docker:
    if "docker-ce" in found.came and not found.foreign and not keep_packages:
        return "goes"
    before = found.began == "bare" and "docker-ce" not in found.came
    return "before" if before and not keep_packages else "kept"


def _of_runtime(name: str, runtime: Sequence[str]) -> bool:
    """Whether a package, or the key of its repository, is among those without which docker would not be what it is."""
    return name in runtime or name.startswith("gpg-pubkey-")


def _in_data_root(path: str, found: Survey) -> bool:
    return any(path.startswith(f"{root.path}/") for root in found.roots)


def _mounts(found: Survey) -> set[str]:
    return {f"/etc/systemd/system/{root.unit}" for root in found.roots if root.mount}


def _units(found: Survey) -> Iterator[str]:
    """Those whose files are there, of all services together: no gateway leads to a server that is gone."""
    named = {path.rpartition("/")[2] for path in found.files if path.startswith("/etc/systemd/system/")}
    named = {name for name in named if name.endswith((".service", ".timer"))}
    yield f"{sharing.UNIT}.service"
    ordered = [
        f"{service}{suffix}"
        for suffix in _SUFFIXES
        for service in dict.fromkeys(service for service, _ in found.places)
    ]
    for unit in ordered:
        yield from sorted({f"{unit}.timer", f"{unit}.service"} & named, reverse=True)
    # of an earlier inventory
    yield from sorted(named - {f"{unit}.{kind}" for unit in ordered for kind in ("service", "timer")})


def _root_line(root: DataRoot, found: Survey) -> str:
    stays = "stays" if root.path in found.there or root.others else ""
    named = (" ".join(names) for name, names in WITHOUT_MODEL.items() if (name, root.path) in found.places)
    return f"{root.path}\t{root.unit}\t{stays}\t{next(named, '')}"


def _patterns(found: Survey) -> list[str]:
    escaped = sorted({data_root.replace(".", "\\.") for _, data_root in found.places})
    of_units = (f"{name}{UNIT_FILES.removeprefix('/run')}(/.*)?" for name in NAMES_OF_RUN)
    return [*(f"{path}(/.*)?" for path in escaped), *of_units]


def _problem(found: Survey, documents_too: bool) -> PlanError | None:
    if found.busy and not found.at_it:
        return PlanError(
            "host",
            f"at work: {', '.join(found.busy)}",
            "nobody at work on it",
            "wait for it, or end it with systemctl stop",
        )
    if "docker-ce" in found.installed and not found.docker and "docker" not in found.going:
        return PlanError(
            "docker",
            "no answer",
            "docker to say what it has: something of others may be in it",
            "systemctl start docker, and run it again",
        )
    absent = [root for root in found.roots if root.mount.startswith(ABSENT)]
    if absent and "disks" not in found.going:
        return PlanError(
            "local disks",
            f"nothing mounted at {absent[0].path}",
            "them mounted, so that what is on them is seen before they are emptied",
            f"systemctl start {absent[0].unit}, and run it again",
        )
    documents = [root.documents for root in found.roots if root.documents]
    if documents and not documents_too:
        return PlanError(
            "documents",
            f"a database in {', '.join(documents)}",
            "nothing that only this host has",
            "save them as docs/how-to/failure-lines.md says, then run it again with --documents-too",
        )
    return None


def _rows(
    found: Survey, docker: Docker, packages: Sequence[str], back: Sequence[str], keep_packages: bool
) -> Iterator[Row]:
    units = [unit for unit in _units(found) if unit in found.active]
    if units:
        yield Row("goes", "services", ", ".join(units))
    for root in found.roots:
        mount = ", with the array or the disk that is mounted there" if root.mount else ""
        yield Row("goes", "data root", f"{root.path}: {gib(root.size)}{mount}")
        if root.others:
            yield Row("stays", "data root", f"in {root.path}: {', '.join(root.others)}: not tritonhost's")
    if files := [path for path in found.files if path not in OVERWRITTEN and not _in_data_root(path, found)]:
        yield Row("goes", "files", f"{len(files)}: {', '.join(files[:3])}{', …' if len(files) > 3 else ''}")
    if found.tables:
        yield Row("goes", "guard", ", ".join(found.tables))
    there = [name for name in packages if name in found.installed]
    if there:
        yield Row("goes", "packages", f"{len(there)}: {', '.join(there)}")
    if back:
        yield Row("back", "packages", ", ".join(back))
    if found.copies and docker != "kept":
        yield Row("back", "files", ", ".join(found.copies))
    if found.needed and there:
        yield Row("stays", "packages", f"those that {', '.join(found.needed)} need")
    if docker != "goes" and found.began:
        yield Row("stays", "docker", _why(found, keep_packages))
    if found.began:
        yield Row("stays", "root file system", "its size, where a deploy has grown it")


def _why(found: Survey, keep_packages: bool) -> str:
    if keep_packages:
        return "as you asked, with its settings"
    if "docker-ce" not in found.came:
        if found.began == "bare":
            return "it was there before tritonhost"
        return "the host was deployed before it had a record: nobody knows what was there"
    return f"it has {', '.join(found.foreign[:5])}{', …' if len(found.foreign) > 5 else ''}, not tritonhost's"
