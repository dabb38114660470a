"""Every profile of inventories/models, deployed unchanged, one after the other, on one host with eight GPUs.

The lab's hub serves small models of the same architectures under the names and revisions that the profiles pin; their
answers are gibberish, smollm2-135m's is English. At the end it prints a table of the deploys and their results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from operations.plan.profile.profiles import load_profile, profile_names
from tests.lab.e2e.one_host import DEPLOY, OneHost
from tests.lab.mirror.content import GATED_TOKEN

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """One line for each profile, printed at the end."""
    rows = ["", f"{'profile':22}{'release':9}{'stages':>7}{'seconds':>9}  answer"]
    yield rows
    print("\n".join(rows))


# the cheapest one of each kind: an engine, TensorRT plans, TensorRT-LLM's LLM API
SMOKE = ("gpt2-medium", "clip-search", "llama-3.1-8b-llmapi")


@pytest.mark.smoke
def test_short_selection_has_every_kind() -> None:
    assert {load_profile(name).kind for name in SMOKE} == {
        load_profile(name).kind for name in profile_names()
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.smoke if name in SMOKE else ()) for name in profile_names()]
)
def test_profile_deploys_unchanged_and_next_run_is_converged(
    name: str, host: OneHost, table: list[str]
) -> None:
    host.environment["LAB_MODEL"] = name
    gated = load_profile(name).gated
    first = host.run(*DEPLOY, environment={"HF_TOKEN": GATED_TOKEN} if gated else None)
    assert first.code == 0, first.output
    assert "gives the golden answer" in first.output, first.output
    second = host.run(*DEPLOY)
    assert second.code == 0, second.output
    assert "converged: release" in second.output, second.output
    host.verified()
    answer = re.findall(r"gives the golden answer: (.*)", first.output)[-1]
    changed = len(re.findall(r"\] Success", first.output))
    release = load_profile(name).image.release
    table.append(f"{name:22}{release:9}{changed:7}{first.seconds:9.1f}  {answer[:50]!r}")
