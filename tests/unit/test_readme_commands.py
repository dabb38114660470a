"""What a reader types: README and tutorial have commands that tests/lab/fresh runs in a pristine root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.fresh import readme


def test_quick_start_clones_from_the_given_place() -> None:
    lines = readme.quick_start("/srv/here.git")
    assert "git clone --quiet file:///srv/here.git" in lines
    assert lines[-1] == "make demo"


def test_commands_for_a_host_are_all_of_the_second_block() -> None:
    assert [line.split()[0] for line in readme.on_a_host()] == [
        ".venv/bin/python",
        ".venv/bin/pyinfra",
        ".venv/bin/pyinfra",
        ".venv/bin/pytest",
    ]
    assert not any("oci.py" in line for line in readme.on_a_host())


def test_tutorial_ends_without_a_lab() -> None:
    lines = readme.tutorial()
    assert lines[-1] == "make lab-down"
    assert len(lines) > 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# t\n\n## In the lab\n\nno block\n", "expected an indented block of commands"),
        ("# t\n\n## Elsewhere\n\n    make demo\n", "expected an indented block of commands"),
        ("# t\n\n## In the lab\n\n    make demo\n    what it prints\n", "commands alone or of output alone"),
    ],
)
def test_a_page_without_clear_blocks_is_refused(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.md").write_text(text, "utf-8")
    monkeypatch.setattr(readme, "REPOSITORY", tmp_path)
    with pytest.raises(ValueError, match=said):
        readme.blocks("page.md", readme.LAB)


def test_blocks_of_output_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text(
        "\n## In the lab\n\n    make demo   # a host\n\n    == Answer\n", "utf-8"
    )
    monkeypatch.setattr(readme, "REPOSITORY", tmp_path)
    assert readme.blocks("page.md", readme.LAB) == [["make demo"]]
