"""docs/modules.svg: the modules of operations/ in groups, and which group imports which, from the real imports.

    python -m tests.module_map                 # writes the picture; make reference does it too

An import from a group to one above it is an error, and so is one from a wing of plan/ to a wing above it: the picture has no place
for it.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from html import escape
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PICTURE = PROJECT / "docs" / "modules.svg"
PACKAGE = "operations"


@dataclass(frozen=True)
class Group:
    """A box: its title, its column, and patterns of module names without `operations.`."""

    title: str
    column: int
    modules: str


GROUPS = (
    Group(
        "Host stages",
        0,
        "storage packages wave host_record ownership selinux container_runtime network monitoring_server load_balancer",
    ),
    Group(
        "Service stages",
        0,
        "model_repository release triton_service database documents gateway door front load_balancers drain canary swap monitoring exporters server server.control server.door server.speed bench",
    ),
    Group(
        "The run",
        0,
        "convergence inputs rollout run_report shorter_output notifications notification_sender lock intake intake.host_key intake.ssh_keys host_health preflight must_gather teardown status watch report exposure replay aiperf site_monitoring export watched_hosts",
    ),
    Group("Artifact stages", 1, "serving_image weights engine artifacts intake.one_run"),
    Group(
        "Commands without hosts",
        3,
        "bundle.* currency hub_repository lock_inventory new_profile provision new_instances",
    ),
    Group(
        "Tools of the stages",
        0,
        "golden_answers bench_results whole_file remote remote.detached etc_files remote.host_files remote.monitoring_files systemd_units remote.refusal intake.refusing intake.asking intake.secrets intake.oci_topic intake.gateway_secrets intake.monitoring_secrets intake.load_balancer_secrets remote.load_balancer_files remote.load_balancers remote.tls_request remote.units remote.rendering remote.repository_files",
    ),
    Group("Facts, and the scripts that the host runs", 0, "facts.* scripts"),
    Group("Golden requests", 2, "server.golden server.search server.replay server.bench remote.tunnel"),
    Group(
        "Hosts from OCI", 1, "intake.oci_instances intake.oci_launch intake.oci_session intake.known_hosts"
    ),
    Group("pyinfra's internals", 2, "pyinfra_patches"),
    Group("The plan: no pyinfra, no host; each wing imports only those below it", 0, "plan.*"),
)
# The wings of plan/, the highest first: name -> patterns of module names without `plan.`. Each imports only those below it.
WINGS = {
    "a new profile": "proposal proposal.*",
    "what a run asks": "deployable difference drain explain model_table ownership progress provisioning report report_page report_pictures schema status swap teardown",
    "export": "export export.*",
    "monitoring": "monitoring monitoring.*",
    "balancing": "balancing balancing.*",
    "preflight": "preflight preflight.*",
    "audit": "audit audit.*",
    "the release": "plan planning release difference_rows",
    "machine": "machine machine.*",
    "exposure": "exposure exposure.*",
    "serving": "serving serving.*",
    "observed": "observed observed.*",
    "artifacts": "artifacts artifacts.*",
    "inventory": "inventory inventory.*",
    "capacity": "capacity capacity.*",
    "profile": "profile profile.*",
    "catalog": "catalog catalog.*",
    "errors, units, paths": "errors html_page wording units paths permissions toml_file causes columns",
}
# Packages themselves hold at most a few names of their modules
PACKAGES = frozenset({"bundle", "facts", "plan"})
PLAN = GROUPS[-1]

# The colours of the other pictures of docs/, in light and in dark
_STYLE = """<style>
  text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
  .page { fill: #ffffff; }
  .area { fill: #f4f6f8; stroke: #c3cad2; }
  .data { fill: #e7f0fb; stroke: #3b6fb0; }
  .name { fill: #1f2328; font-size: 13px; font-weight: 600; }
  .text { fill: #424a53; }
  .line { fill: none; stroke: #424a53; stroke-width: 1.6; marker-end: url(#tip); }
  .tip { fill: #424a53; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; }
    .area { fill: #161b22; stroke: #3d444d; }
    .data { fill: #12263f; stroke: #6ca4e8; }
    .name { fill: #f0f6fc; }
    .text { fill: #c5ccd3; }
    .line { stroke: #b1bac4; }
    .tip { fill: #b1bac4; }
  }
</style>
<defs>
  <marker id="tip" viewBox="0 0 8 8" refX="2" refY="4" markerWidth="7" markerHeight="7" orient="auto">
    <path class="tip" d="M0 0 L8 4 L0 8 z"/>
  </marker>
</defs>"""

WIDTH, GAP, TOP, LINE, CHARACTERS = 330, 36, 76, 16, 44


def modules() -> dict[str, Path]:
    """Every module of operations/ by its name without the package's."""
    found = {}
    for path in sorted((PROJECT / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(PROJECT / PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__" and not name.endswith("__main__"):
            found[name] = path
    return found


@cache
def _nodes(path: Path) -> tuple[ast.stmt, ...]:
    """The import statements of a file, wherever they stand."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def imports_of(path: Path, known: Iterable[str]) -> set[str]:
    """The modules of operations/ that a file imports, anywhere in it."""
    names = set()
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for name in names:
        rest = name.removeprefix(f"{PACKAGE}.")
        while rest and rest not in known:
            rest = rest.rpartition(".")[0]
        if rest and name.startswith(f"{PACKAGE}."):
            found.add(rest)
    return found


def group_of(module: str) -> Group:
    """The one group a module is in; ValueError for none, or for several."""
    name = f"{module}.*" if module in PACKAGES else module
    found = [
        group for group in GROUPS if any(fnmatchcase(name, pattern) for pattern in group.modules.split())
    ]
    if len(found) != 1:
        raise ValueError(
            f"operations/{module.replace('.', '/')}.py: found in {len(found)} groups of tests/module_map.py, expected one"
        )
    return found[0]


def wing_of(module: str) -> str:
    """The one wing of plan/ that a module is in; ValueError for none, or for several."""
    name = module.removeprefix("plan.")
    found = [wing for wing, patterns in WINGS.items() if any(fnmatchcase(name, p) for p in patterns.split())]
    if len(found) != 1:
        raise ValueError(
            f"operations/{module.replace('.', '/')}.py: found in {len(found)} wings of tests/module_map.py, expected one"
        )
    return found[0]


def check_wings() -> None:
    """ValueError for an import from a wing of plan/ to one above it."""
    known, order = modules(), list(WINGS)
    for module, path in known.items():
        if group_of(module) != PLAN:
            continue
        source = wing_of(module)
        for target in map(wing_of, imports_of(path, known)):
            if order.index(target) < order.index(source):
                raise ValueError(f"operations.{module} imports a module of {target!r}: up from {source!r}")


def edges() -> dict[Group, set[Group]]:
    """Group -> groups that its modules import; ValueError for one that is above it."""
    check_wings()
    known = modules()
    found: dict[Group, set[Group]] = {group: set() for group in GROUPS}
    for module, path in known.items():
        source = group_of(module)
        for name in imports_of(path, known):
            target = group_of(name)
            if GROUPS.index(target) < GROUPS.index(source):
                raise ValueError(
                    f"operations.{module} imports operations.{name}: from {source.title!r} up to {target.title!r}"
                )
            if target != source:
                found[source].add(target)
    return found


def nearest(found: dict[Group, set[Group]]) -> dict[Group, set[Group]]:
    """Without the edges that a way over another group says already."""
    return {
        source: {
            target
            for target in targets
            if not any(target in _reached(other, found) for other in targets if other != target)
        }
        for source, targets in found.items()
    }


def _reached(group: Group, found: dict[Group, set[Group]]) -> set[Group]:
    reached = set(found[group])
    for target in found[group]:
        reached |= _reached(target, found)
    return reached


def levels(found: dict[Group, set[Group]]) -> dict[Group, int]:
    """How far each group is above the lowest."""
    level: dict[Group, int] = {}
    for group in reversed(GROUPS):
        level[group] = 1 + max((level[target] for target in found[group]), default=-1)
    return level


@dataclass(frozen=True)
class Box:
    """Where a group is drawn."""

    x: int
    y: int
    width: int
    height: int
    lines: tuple[str, ...]


def _texts(group: Group) -> list[str]:
    """What a box says: the names of its modules, and of the plan one text for each wing."""
    paths = modules()
    names = [name for name, path in paths.items() if path.stem != "__init__" and group_of(name) == group]
    if group != PLAN:
        return [", ".join(name.rpartition(".")[2] for name in names)]
    return [
        f"{wing}: {', '.join(name.rpartition('.')[2] for name in names if wing_of(name) == wing)}"
        for wing in WINGS
    ]


def _wrapped(text: str, characters: int) -> list[str]:
    return textwrap.wrap(text, characters, break_on_hyphens=False, subsequent_indent="\u2003")


def boxes(found: dict[Group, set[Group]]) -> dict[Group, Box]:
    """A row for each level, the highest first; the lowest is as wide as the picture."""
    level = levels(found)
    columns = 1 + max(group.column for group in GROUPS)
    whole = columns * WIDTH + (columns - 1) * GAP
    placed: dict[Group, Box] = {}
    y = TOP
    for number in sorted(set(level.values()), reverse=True):
        row = [group for group in GROUPS if level[group] == number]
        height = 0
        for group in row:
            width = whole if number == 0 else WIDTH
            characters = CHARACTERS * width // WIDTH
            lines = tuple(line for text in _texts(group) for line in _wrapped(text, characters))
            box = Box(group.column * (WIDTH + GAP), y, width, 36 + LINE * len(lines), lines)
            placed[group] = box
            height = max(height, box.height)
        y += height + GAP
    return placed


def _arrow(source: Box, target: Box) -> str:
    """Straight down within a column; else from the side of the upper box, along, and down to the lower one."""
    x = min(max(source.x + source.width // 2, target.x + 20), target.x + target.width - 20)
    bottom = source.y + source.height
    if source.x < x < source.x + source.width:
        return f'<path class="line" d="M{x} {bottom} V{target.y - 7}"/>'
    side = source.x + source.width if target.x > source.x else source.x
    middle = source.y + source.height // 2
    end = target.x + target.width // 2
    if target.x > source.x:
        return f'<path class="line" d="M{side} {middle} H{end} V{target.y - 7}"/>'
    return f'<path class="line" d="M{source.x + source.width // 2} {bottom} V{target.y + target.height // 2} H{target.x + target.width + 7}"/>'


def picture() -> str:
    """The whole picture."""
    found = edges()
    placed = boxes(found)
    width = max(box.x + box.width for box in placed.values())
    height = max(box.y + box.height for box in placed.values())
    first = placed[GROUPS[0]]
    parts = [
        f'<rect class="data" x="{first.x}" y="0" width="{first.width}" height="40" rx="6"/>',
        f'<text class="name" x="{first.x + 14}" y="25">deploy.py: the stages, in their order</text>',
        f'<path class="line" d="M{first.x + first.width // 2} 40 V{first.y - 7}"/>',
    ]
    for source, targets in nearest(found).items():
        parts += [_arrow(placed[source], placed[target]) for target in GROUPS if target in targets]
    for group, box in placed.items():
        parts.append(
            f'<rect class="area" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6"/>'
        )
        parts.append(f'<text class="name" x="{box.x + 14}" y="{box.y + 21}">{escape(group.title)}</text>')
        for number, line in enumerate(box.lines):
            y = box.y + 41 + LINE * number
            parts.append(f'<text class="text" x="{box.x + 14}" y="{y}">{escape(line)}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -4 {width + 8} {height + 8}" role="img" '
        'aria-label="Groups of modules of operations/ and their imports">'
    )
    back = f'<rect class="page" x="-4" y="-4" width="{width + 8}" height="{height + 8}"/>'
    return "\n".join([head, _STYLE, back, *parts, "</svg>"]) + "\n"


def main() -> int:
    PICTURE.write_text(picture(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
