"""How a model is served on some GPUs: kind, release, precision, parallelism and lengths, the first that fits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product

from pydantic import ValidationError

from operations.plan.capacity.described import check_described, check_rope
from operations.plan.capacity.fit import deployment
from operations.plan.capacity.forecast import forecast
from operations.plan.capacity.gpu import Gpu
from operations.plan.capacity.limits import tensor_degrees
from operations.plan.capacity.number_formats import check_formats
from operations.plan.capacity.precision import capability
from operations.plan.catalog.models import Version
from operations.plan.catalog.shapes import SHAPES, Shape, shape
from operations.plan.catalog.support_matrix import RELEASES, StackRelease, stack_release
from operations.plan.errors import NOWHERE, PlanError
from operations.plan.explain import gpu_name, gpus_from
from operations.plan.planning import FIRST_LLMAPI_VERSION, LAST_ENGINE_VERSION
from operations.plan.profile.architecture import rope_type_of
from operations.plan.profile.profiles import KINDS, EngineProfile, LlmApiProfile
from operations.plan.proposal.profile_tables import QUANTIZATIONS, Choice, dtype_of, tables
from operations.plan.proposal.repository import Repository
from operations.plan.units import MIB, gib
from operations.plan.wording import from_validation

# Tokens of one sequence, input and output together, where nobody says: the longest that fits is taken
CONTEXTS = (8192, 4096, 2048)
# Sequences at a time, the most that fit; the first number is what a choice must reach to be taken at once
ENOUGH, BATCHES = 4, (64, 32, 16, 8)
FEW = (2, 1)
# Keys of errors that another release may not have
_OF_RELEASE = ("GPUs", "image.release")
# The part of a GPU's memory that weights may take where the model's numbers are not known
_WEIGHTS_PART = 0.8


@dataclass(frozen=True)
class Wanted:
    """
    What a person asks for; None: not said.

    + gpus: NAME:COUNT; shape: an OCI shape, whose GPUs they are
    + context: tokens of one sequence, input and output together
    + concurrency: sequences at a time
    """

    gpus: str | None = None
    shape: str | None = None
    kind: str | None = None
    release: str | None = None
    context: int | None = None
    concurrency: int | None = None


def choose(found: Repository, wanted: Wanted) -> tuple[Choice, list[Choice | None]]:
    """
    The kind, release, precision, parallelism and lengths for the GPUs that are asked for, or for the smallest shape that serves the
    model; and beside it what would be chosen on each shape of `by_size`.

    Raises PlanError where nothing fits, with what would.
    """
    kind = kind_of(found, wanted)
    others = _on_each_shape(found, kind, wanted)
    there = [choice for choice in others if choice]
    named = wanted.gpus or wanted.shape
    if not named and there:
        return _smallest(there), others
    try:
        return on_gpus(found, kind, wanted if named else replace(wanted, shape=by_size()[-1].name)), others
    except PlanError as error:
        names = [choice.shape.name for choice in _of_the_newest(there) if choice.shape]
        if names and named and error.reference in _OF_MEMORY:
            error.then = f"it fits on {', '.join(names[:3])}{' and larger' if len(names) > 3 else ''}; --shape NAME plans for one"
        raise


def _of_the_newest(choices: Sequence[Choice]) -> list[Choice]:
    newest = max((choice.stack.release for choice in choices), default="")
    return [choice for choice in choices if choice.stack.release == newest]


# References of errors that a larger GPU, or more of them, may not have
_OF_MEMORY = ("does-not-fit", "checkpoint-tensor-parallel", "llm-tensor-parallel-size")


def _on_each_shape(found: Repository, kind: str, wanted: Wanted) -> list[Choice | None]:
    """For each shape of `by_size`, what would be chosen. Shapes with the same GPUs have the same answer."""
    seen: dict[tuple[str, int], Choice | None] = {}
    choices = []
    for row in by_size():
        gpus = (gpu_name(row), row.gpu_count)
        if gpus not in seen:
            seen[gpus] = _on_shape(found, kind, wanted, row)
        choice = seen[gpus]
        choices.append(choice and replace(choice, shape=row))
    return choices


def _on_shape(found: Repository, kind: str, wanted: Wanted, row: Shape) -> Choice | None:
    try:
        return on_gpus(found, kind, replace(wanted, gpus=None, shape=row.name))
    except PlanError:
        return None


def _smallest(choices: Sequence[Choice]) -> Choice:
    """The first with the newest release, the weights' own precision and enough sequences at a time; else with fewer of these."""
    of_today = _of_the_newest(choices)
    plain = [choice for choice in of_today if not choice.quantization and choice.batch >= ENOUGH]
    return (plain or of_today)[0]


def kind_of(found: Repository, wanted: Wanted) -> str:
    """
    engine where a converter reads the weights, unless another kind is asked for; else llmapi.

    Raises PlanError for a kind that does not serve the architecture.
    """
    row, stored = found.row, found.description.stored
    converts = bool(row.family) and found.config.get("model_type") == row.model_type and stored is None
    if wanted.kind == "engine" and not converts:
        what = (
            f"weights of {stored.words}"
            if stored
            else f"{row.architecture}, for which this tool has no converter"
        )
        then = "leave --kind out" if row.pytorch else "choose another model"
        raise PlanError("--kind", "engine", f"llmapi for {what}", then, reference="no-converter")
    if wanted.kind == "llmapi" and row.pytorch is None:
        expected = f"engine for {row.architecture}, which no version of the PyTorch backend has"
        then = "leave --kind out" if converts else "choose another model"
        raise PlanError("--kind", "llmapi", expected, then, reference="unknown-architecture")
    if wanted.kind or converts:
        return wanted.kind or "engine"
    if row.pytorch is None:
        raise PlanError(
            found.name,
            f"{row.architecture} ({row.models})",
            "an architecture that this tool serves",
            "it knows no converter for it, and no release's PyTorch backend has it; `tritonhost models` lists those that are served",
            reference="unknown-architecture",
        )
    return "llmapi"


def stacks(found: Repository, kind: str, wanted: Wanted) -> list[StackRelease]:
    """The releases that may serve the model, the newest first, one for each TensorRT-LLM."""
    if wanted.release:
        return [stack_release(wanted.release, "--release")]
    row = found.row
    seen: dict[Version, StackRelease] = {}
    for release in sorted(RELEASES, reverse=True):
        stack = RELEASES[release]
        of_kind = (
            row.engine <= stack.version and stack.version[:2] <= LAST_ENGINE_VERSION
            if kind == "engine"
            else stack.version >= max(FIRST_LLMAPI_VERSION, row.pytorch or ())
        )
        if of_kind:
            seen.setdefault(stack.version, stack)
    return list(seen.values())


def on_gpus(found: Repository, kind: str, wanted: Wanted) -> Choice:
    """The first choice that fits the GPUs that are asked for. Raises the error of the one that would need the least else."""
    gpus, of_shape = gpus_of(wanted)
    problem: PlanError | None = None
    for stack in stacks(found, kind, wanted):
        try:
            return _with_release(found, kind, stack, gpus, of_shape, wanted)
        except PlanError as error:
            problem = problem or error
            # another release helps where this one does not run on the GPU, and nowhere else
            if error.key not in _OF_RELEASE:
                break
    if problem is None:
        raise PlanError("--release", wanted.release, "a release that serves the model", "leave --release out")
    raise problem


def gpus_of(wanted: Wanted) -> tuple[tuple[Gpu, ...], Shape | None]:
    """The GPUs that are asked for, and the shape that has them. Raises PlanError for an unknown name."""
    if wanted.shape is not None:
        row = shape(wanted.shape, "--shape")
        return gpus_from(f"{gpu_name(row)}:{row.gpu_count}"), row
    gpus = gpus_from(wanted.gpus or "")
    fitting = [
        row
        for row in SHAPES.values()
        if row.has_gpu(gpus[0].name, gpus[0].memory_total_mib) and row.gpu_count >= len(gpus)
    ]
    return gpus, min(fitting, key=lambda row: row.gpu_count, default=None)


def by_size() -> list[Shape]:
    """The shapes, the smallest first: the memory of all GPUs, then the older."""
    return sorted(
        SHAPES.values(),
        key=lambda row: (
            row.gpu_count * row.gpu_memory_gib,
            capability(row.compute_capability),
            row.gpu_count,
        ),
    )


def _with_release(
    found: Repository,
    kind: str,
    stack: StackRelease,
    gpus: tuple[Gpu, ...],
    of_shape: Shape | None,
    wanted: Wanted,
) -> Choice:
    if kind == "engine":
        check_rope(rope_type_of(found.config), stack, "config.json: rope_scaling")
    dtype = dtype_of(found, gpus[0])
    base = Choice(kind, stack, gpus, of_shape, dtype, 1, "", 0, 0, None, {})
    degrees = _degrees(found, len(gpus))
    fits_whole = sum(found.weight_files.values()) <= 0.9 * len(gpus) * gpus[0].memory_total_mib * MIB
    formats = ["", *(QUANTIZATIONS if kind == "engine" and fits_whole else ())]
    contexts = _contexts(found, wanted)
    least = replace(base, tensor_parallel=degrees[-1], context=contexts[-1], batch=wanted.concurrency or 1)
    problem: PlanError | None = None
    fitting = []
    for quantization in formats:
        # all GPUs and the fewest tokens: what does not fit so does not fit at all
        try:
            _judged(found, replace(least, quantization=quantization))
            fitting.append(quantization)
        except PlanError as error:
            if error.key in _OF_RELEASE:
                raise
            problem = problem or error
    for few in (False, True):
        for quantization, context, degree in product(fitting, contexts, degrees):
            one = replace(base, tensor_parallel=degree, quantization=quantization, context=context)
            with suppress(PlanError):
                return _with_the_largest_batch(found, one, wanted, few=few)
    assert problem is not None
    raise problem


def _degrees(found: Repository, count: int) -> list[int]:
    """Degrees of tensor parallelism to try, the smallest first: powers of two that divide the model."""
    architecture = found.architecture
    allowed = set(tensor_degrees(architecture)) if architecture else set(range(1, 65))
    return [degree for degree in (1, 2, 4, 8, 16, 32, 64) if degree <= count and degree in allowed] or [1]


def _contexts(found: Repository, wanted: Wanted) -> list[int]:
    if wanted.context:
        return [wanted.context]
    architecture = found.architecture
    longest = architecture.max_positions if architecture else CONTEXTS[0]
    return [context for context in CONTEXTS if context <= longest] or [longest]


def _with_the_largest_batch(found: Repository, one: Choice, wanted: Wanted, *, few: bool) -> Choice:
    """The choice with as many sequences at a time as fit. Raises PlanError where fewer fit than must."""
    if wanted.concurrency:
        return _judged(found, replace(one, batch=wanted.concurrency))
    if few:
        least = None
        for batch in FEW:
            try:
                return _judged(found, replace(one, batch=batch))
            except PlanError as error:
                least = error
        assert least is not None
        raise least
    best = _judged(found, replace(one, batch=ENOUGH))
    if best.seen is None:
        return best  # nothing says whether more fit
    for batch in BATCHES:
        try:
            return _judged(found, replace(one, batch=batch))
        except PlanError:
            continue
    return best


def _judged(found: Repository, one: Choice) -> Choice:
    """The choice with its forecast. Raises PlanError where it does not fit."""
    data = tables(found, one)
    try:
        profile = KINDS[one.kind].model_validate(data)
    except ValidationError as error:
        raise from_validation(error, KINDS[one.kind], lambda path: NOWHERE) from None
    assert isinstance(profile, EngineProfile | LlmApiProfile)
    check_formats(profile, one.stack, one.gpus[0])
    check_described(profile, one.stack, one.gpus, {"weights": found.description})
    architecture = found.architecture
    wanted = deployment(profile, one.stack, one.gpus[0], architecture, found.description.stored)
    if wanted is None:
        return _by_size_alone(found, replace(one, data=data))
    seen = forecast(wanted)
    if seen.max_concurrent is not None and seen.max_concurrent < one.batch:
        memory = one.gpus[0].memory_total_mib * MIB
        raise PlanError(
            found.name,
            f"{gib(seen.weights_per_rank)} of weights on each of {one.tensor_parallel} x {one.gpus[0].name} ({gib(memory)}), which "
            f"leaves a KV cache for {seen.max_concurrent} sequences of {one.context} tokens",
            f"{one.batch} at a time",
            "use more or larger GPUs, or a smaller --context or --concurrency",
            reference="does-not-fit",
        )
    return replace(one, seen=seen, data=data)


def _by_size_alone(found: Repository, one: Choice) -> Choice:
    share = sum(found.weight_files.values()) / one.tensor_parallel
    memory = one.gpus[0].memory_total_mib * MIB
    if share > _WEIGHTS_PART * memory:
        raise PlanError(
            found.name,
            f"{gib(int(share))} of weights on each of {one.tensor_parallel} x {one.gpus[0].name}",
            f"at most {gib(int(_WEIGHTS_PART * memory))}: the rest is for the KV cache",
            "use more or larger GPUs",
            reference="does-not-fit",
        )
    return one


def described(choices: Sequence[Choice | None]) -> list[str]:
    """One line a shape: what would be chosen there, or that the model does not fit."""
    rows = []
    for row, choice in zip(by_size(), choices, strict=True):
        if choice is None:
            rows.append((row.name, f"{row.gpu_count} x {row.gpu} {row.gpu_memory_gib} GB", "does not fit"))
            continue
        of = f"{choice.tensor_parallel} of {len(choice.gpus)}"
        how = f", {choice.quantization}" if choice.quantization else ""
        what = f"{of} GPUs, {choice.batch} x {choice.context} tokens{how}, release {choice.stack.release}"
        rows.append((row.name, f"{row.gpu_count} x {row.gpu} {row.gpu_memory_gib} GB", what))
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return [f"{name:<{first}}  {gpu:<{second}}  {what}" for name, gpu, what in rows]
