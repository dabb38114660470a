"""From a repository to a profile's file, its forecast, and what other shapes would make of it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from operations.plan.capacity.forecast import as_dict, lines
from operations.plan.errors import PlanError
from operations.plan.explain import planned
from operations.plan.profile.profiles import KINDS
from operations.plan.proposal.chat import golden_prompt, template_of
from operations.plan.proposal.choice import Wanted, choose, described
from operations.plan.proposal.profile_tables import Choice
from operations.plan.proposal.repository import Repository, check_servable
from operations.plan.proposal.text import profile_text


@dataclass(frozen=True)
class Proposal:
    """
    A profile, not yet written.

    + text: of its file
    + shapes: one line for each OCI shape
    + warnings: one line each
    """

    text: str
    choice: Choice
    shapes: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        choice = self.choice
        return {
            "kind": choice.kind,
            "release": choice.stack.release,
            "gpu": choice.gpus[0].name,
            "gpus": choice.tensor_parallel,
            "shape": choice.shape.name if choice.shape else None,
            "quantization": choice.quantization or None,
            "context": choice.context,
            "concurrency": choice.batch,
            "forecast": as_dict(choice.seen) if choice.seen else None,
            "shapes": self.shapes,
            "warnings": self.warnings,
        }

    def forecast(self) -> list[str]:
        """The forecast as a table, or one line that says why there is none."""
        if self.choice.seen:
            return lines(self.choice.seen)
        return ["no forecast beyond the size of the weights: config.json is of a form that is not read"]


def propose(found: Repository, wanted: Wanted, name: str, data: Mapping[str, Any]) -> Proposal:
    """
    The profile for a model.

    + name: its own
    + data: inventory data, as in group_data/all.py, with which the result is planned

    Raises PlanError for a repository that cannot be served, and for GPUs on which it does not fit. The text is what a plan accepts.
    """
    check_servable(found)
    choice, others = choose(found, wanted)
    prompt, how = golden_prompt(template_of(found.template, found.tokenizer), found.tokenizer)
    text = profile_text(found, choice, prompt, how)
    try:
        text.encode()
        written = tomllib.loads(text)
    except ValueError as error:
        written, problem = {}, str(error)
    else:
        problem = "another content"
    # the words of a stranger's files stand in comments alone
    if {**written, "golden": None} != {**choice.data, "golden": None}:
        raise PlanError(
            found.name, problem, "a profile that says what was chosen", "report it", reference="proposal"
        )
    profile = KINDS[choice.kind].model_validate(written)
    release = planned(name, profile, data, f"{choice.gpus[0].name}:{len(choice.gpus)}")
    return Proposal(text, choice, tuple(described(others)), (*_of_counts(found, choice), *release.warnings))


def _of_counts(found: Repository, choice: Choice) -> tuple[str, ...]:
    """A warning where the files hold fewer numbers than the model has: an upload that is not complete, or another model."""
    stored, expected = sum(found.counts.values()), choice.seen.parameters if choice.seen else 0
    if not found.counts or not expected or found.description.stored or stored >= expected:
        return ()
    return (
        f"{found.name}: its files hold {stored} numbers, and a model of its config.json has {expected}: is the upload complete?",
    )
