"""docs/modules.svg is drawn from the imports of operations/."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import module_map
from tests.module_map import GROUPS, Group, edges, group_of, imports_of, levels, modules, nearest, picture


def test_picture_is_current() -> None:
    assert module_map.PICTURE.read_text(encoding="utf-8") == picture(), "run `make reference`"


def test_picture_names_every_module() -> None:
    text = picture()
    for name, path in modules().items():
        assert path.stem == "__init__" or name.rpartition(".")[2] in text


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import operations.lock\nfrom operations.plan.errors import PlanError\n"
        "def late():\n    from operations import swap\nfrom operations.plan import release\nimport json\n"
    )
    known = ["lock", "plan", "plan.errors", "plan.release", "swap"]
    assert imports_of(file, known) == {"lock", "plan.errors", "plan.release", "swap"}


def test_a_module_of_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"operations/unknown\.py: found in 0 groups"):
        group_of("unknown")


def test_an_import_upwards_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_one_more(path: Path, known: object) -> set[str]:
        return {"swap"} if path.name == "tunnel.py" else set()

    monkeypatch.setattr(module_map, "imports_of", with_one_more)
    with pytest.raises(ValueError, match=r"operations\.remote\.tunnel imports operations\.swap"):
        edges()


def test_an_import_of_a_higher_wing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_one_more(path: Path, known: object) -> set[str]:
        return {"plan.machine.disks"} if path.name == "shapes.py" else set()

    monkeypatch.setattr(module_map, "imports_of", with_one_more)
    with pytest.raises(
        ValueError, match=r"plan\.catalog\.shapes imports a module of 'machine': up from 'catalog'"
    ):
        edges()


def test_a_module_of_no_wing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"operations/plan/unknown\.py: found in 0 wings"):
        module_map.wing_of("plan.unknown")


def test_nearest_leaves_out_what_another_way_shows() -> None:
    first, second, third = GROUPS[:3]
    found: dict[Group, set[Group]] = {group: set() for group in GROUPS}
    found |= {first: {second, third}, second: {third}}
    assert nearest(found)[first] == {second}
    assert nearest(found)[second] == {third}


def test_levels_put_a_group_above_what_it_imports() -> None:
    found = edges()
    level = levels(found)
    assert all(level[source] > level[target] for source, targets in found.items() for target in targets)
    assert level[GROUPS[-1]] == 0
