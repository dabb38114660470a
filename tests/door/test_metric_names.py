"""What the site's Prometheus and Grafana query of the door is what the door exposes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from files.image.door.metrics import Metrics
from files.image.door.usage import Usage
from operations.plan.monitoring import board, rules, yaml_text

CAPTURE = Path(__file__).parents[1] / "unit" / "captures" / "metrics" / "door.prom"
# with what follows it in braces: label matchers
QUERIED = re.compile(r"\b(tritonhost_door_\w+)(?:\{([^}]*)\})?")
# of targets, not of the door
OF_TARGETS = {"job", "instance", "host", "service", "profile"}


def samples(page: str) -> dict[str, set[str]]:
    """The names of a page's samples, each with its labels."""
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


@pytest.fixture
def exposed(tmp_path: Path) -> dict[str, set[str]]:
    """The samples of the door's page, after a request."""
    usage = Usage(tmp_path)
    usage.add("shop", "tiny", 30, 60)
    made = Metrics(usage)
    made.requests.labels("tiny", "shop", "200").inc()
    made.first.labels("tiny").observe(0.1)
    made.whole.labels("tiny").observe(1)
    return samples(made.text().decode())


def queried(text: str) -> Iterator[tuple[str, set[str]]]:
    """Each name that a file names, and the labels that it selects by."""
    for name, matchers in QUERIED.findall(text):
        yield name, set(re.findall(r"(\w+)\s*[=!]", matchers)) - OF_TARGETS


def unknown(exposed: dict[str, set[str]], text: str) -> list[str]:
    """What a file names and the door does not expose."""
    return [
        f"{name}{sorted(labels)}"
        for name, labels in queried(text)
        if name not in exposed or not labels <= exposed[name]
    ]


@pytest.mark.parametrize(
    "text", [yaml_text.document(rules.rules("page")), board.board()], ids=["rules", "board"]
)
def test_each_door_metric_is_one_that_the_door_exposes(exposed: dict[str, set[str]], text: str) -> None:
    assert [*queried(text)]
    assert unknown(exposed, text) == []


def test_board_shows_each_kind_of_the_door_s_numbers(exposed: dict[str, set[str]]) -> None:
    shown = {name for name, _ in queried(board.board())}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed} == {
        re.sub(r"_bucket$", "", name) for name in shown
    }


@pytest.mark.parametrize(
    "changed",
    [("_requests_total", "_answers_total"), ("first_token", "first_part"), ("code=~", "status=~")],
)
def test_renamed_metric_is_noticed(exposed: dict[str, set[str]], changed: tuple[str, str]) -> None:
    text = yaml_text.document(rules.rules("page"))
    assert unknown(exposed, text.replace(*changed))


def test_capture_of_the_rules_tests_is_like_the_door_s_page(exposed: dict[str, set[str]]) -> None:
    assert samples(CAPTURE.read_text("utf-8")) == exposed
