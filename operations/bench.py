"""Measure how fast a host's door answers, and compare two results.

python -m operations.bench gpu-1 --inventory inventories/oci.py                 # profile smoke: about twenty requests
python -m operations.bench gpu-1 --profile capacity --slo ttft_ms=500,itl_ms=50
python -m operations.bench --url https://gpu-1.example:8443/v1 --key-variable KEY
python -m operations.bench compare A.json B.json --page change.html

Exit codes: 0 measured, or B is not worse; 1 a request failed, no rate is within the limits, or B is worse than is allowed; 2 bad input;
5 the host was not reached, or its door did not answer the first request.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host

from operations import aiperf, bench_results, convergence, preflight, pyinfra_patches
from operations.bench_results import NotMeasured
from operations.intake import host_key
from operations.intake.refusing import refusing
from operations.plan import PlanError, Release
from operations.plan.errors import one_line
from operations.plan.inventory.hosts import read_group_data
from operations.plan.paths import PROJECT
from operations.plan.serving import bench_page, bench_result, benched
from operations.plan.serving.bench_result import BenchDocument, Measured
from operations.plan.serving.benched import MAX_TOKENS, MOST_RATE, Figures, Slo, at_rate, slo_of, smoke
from operations.plan.serving.servers import LOOPBACK
from operations.remote.detached import LOST
from operations.remote.tunnel import forwarded
from operations.server import speed
from operations.server.control import measured

PROGRAM = "python -m operations.bench"
INVENTORY = "inventories/oci.py"
UNREACHED = 5
# beside the time in which requests arrive: the last ones are waited for
LAST_SECONDS = 180


@dataclass(frozen=True)
class Place:
    """Where requests go, and what is known of it. + release: what a host of the inventory should be; None: an address alone"""

    url: str
    host: str
    gpu: str = ""
    gpus: int = 0
    release: Release | None = None


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The command's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog, description="Measure how fast a host's door answers, or compare two results."
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="HOST | compare A B", help="a host, or compare and two results")
    add("--inventory", default=INVENTORY, metavar="FILE", help=f"default: {INVENTORY}")
    add(
        "--url",
        help="of a door or of a gateway before it, such as https://gpu-1.example:8443/v1; then no HOST",
    )
    add("--key-variable", metavar="NAME", help="the environment's variable that holds the key")
    add("--model", default="", metavar="NAME", help="as clients name it; default: the first of the door")
    add("--gpu", default="", metavar="NAME", help="with --url: the GPU's name, for the result")
    add("--profile", choices=list(MAX_TOKENS), default="smoke", help="default: smoke")
    add(
        "--rate",
        type=float,
        default=2.0,
        metavar="N",
        help="requests a second; of capacity the first (default 2)",
    )
    add("--seconds", type=float, default=30.0, metavar="N", help="of each rate (default 30)")
    add("--slo", default="", metavar="LIMITS", help="ttft_ms=N,itl_ms=N (default ttft_ms=1000,itl_ms=100)")
    add("--seed", type=int, default=1, metavar="N", help="of prompts and times (default 1)")
    add("--aiperf", metavar="PROGRAM", help="for interactive and capacity: AIPerf measures")
    add("--tokenizer", default="builtin", metavar="DIR", help="of the model, for AIPerf")
    add(
        "--directory", metavar="DIR", help="for results; default: measurements_directory of group_data/all.py"
    )
    add("--record", action="store_true", help="of smoke: what bench_gate compares the next release with")
    add(
        "--allowed",
        type=float,
        default=0.1,
        metavar="PART",
        help="of compare: how much worse B may be (default 0.1)",
    )
    add("--page", type=Path, metavar="FILE", help="of compare: a page, or a picture where FILE ends in .svg")
    add("--json", action="store_true", help="for a program, on standard output")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_intermixed_args(arguments)
    with refusing(as_json=given.json):
        if given.words[:1] == ["compare"]:
            return _compare(given)
        slo = _checked(given)
        directory = given.directory or _directory()
        host = None if given.url else _host(given)
        try:
            with _place(given, host) as place:
                document = _measure(given, place, slo)
                if given.record:
                    _record(host, place, document)
        except NotMeasured as problem:
            print(f"tritonhost: {one_line(str(problem))}", file=sys.stderr)
            return UNREACHED
        return _written(given, document, directory)


def _written(given: argparse.Namespace, document: BenchDocument, directory: str) -> int:
    try:
        path = bench_results.write(document, directory)
    except OSError as error:
        expected = "a directory that can be written"
        raise PlanError(
            "--directory", f"{directory}: {error.strerror}", expected, reference="not-written"
        ) from None
    if given.json:
        print(document.model_dump_json(indent=2))
    else:
        print("\n".join([*bench_result.shown(document), f"written: {bench_results.shown(path)}"]))
    failed = any(each.figures.errors for each in document.phases if each.within_slo is None)
    return 1 if failed or document.capacity_per_s == 0 else 0


def _directory() -> str:
    data = read_group_data(PROJECT / "inventories" / "group_data" / "all.py")
    return str(data.get("measurements_directory", bench_results.DIRECTORY))


def _checked(given: argparse.Namespace) -> Slo:
    """The limits, where all words go together. Raises PlanError."""
    if len(given.words) > 1 or (given.url and given.words):
        found = " ".join(given.words)
        raise PlanError("HOST", found, "one host, or --url without one", reference="wrong-usage")
    if given.url and (
        urlsplit(given.url).scheme not in ("http", "https") or not urlsplit(given.url).hostname
    ):
        raise PlanError("--url", given.url, "such as https://gpu-1.example:8443/v1", reference="wrong-usage")
    for option, value, most in (("--rate", given.rate, MOST_RATE), ("--seconds", given.seconds, 3600)):
        if not 0 < value <= most:
            raise PlanError(option, value, f"above 0, at most {most:g}", reference="wrong-usage")
    if given.rate * given.seconds > 100_000:
        found = f"{given.rate * given.seconds:.0f} requests"
        raise PlanError("--seconds", found, "at most 100000", reference="wrong-usage")
    if given.record and (given.url or given.profile != "smoke"):
        raise PlanError("--record", given.profile, "a HOST and --profile smoke", reference="wrong-usage")
    if given.aiperf and given.profile == "smoke":
        expected = "--profile interactive or capacity: smoke is measured by tritonhost itself"
        raise PlanError("--aiperf", given.profile, expected, reference="wrong-usage")
    if given.key_variable and not os.environ.get(given.key_variable):
        found = f"no {given.key_variable} in the environment"
        raise PlanError("--key-variable", found, "a variable that holds the key", reference="no-key")
    return slo_of(given.slo)


def _host(given: argparse.Namespace) -> Host:
    """The one host that is meant. Raises PlanError."""
    words = argparse.Namespace(inventory=given.inventory, limit=given.words, group_data=[], data=[])
    _, chosen = preflight.state_and_hosts(words)
    if len(chosen) != 1:
        names = ", ".join(sorted(each.name for each in chosen)) or "none"
        raise PlanError("HOST", names, "one of them", reference="several-hosts")
    return chosen[0]


@contextmanager
def _place(given: argparse.Namespace, host: Host | None) -> Iterator[Place]:
    """Where the requests go, while the block runs. Raises NotMeasured, PlanError."""
    if host is None:
        parts = urlsplit(given.url)
        url = f"{given.url.rstrip('/')}" + ("" if parts.path.strip("/") else "/v1")
        yield Place(url, parts.hostname or "", given.gpu, 1 if given.gpu else 0)
        return
    try:
        with pyinfra_patches.connected(host):
            release, _ = convergence.planned()
            if release.door is None:
                then = "a host without a door is measured by replay"
                raise PlanError("door", "none", "door = {} in the inventory", then, reference="no-door")
            with forwarded(host, LOOPBACK, release.door.port) as endpoint:
                gpus = release.gpus
                yield Place(f"http://{endpoint}/v1", host.name, gpus[0].name, len(gpus), release)
    except ConnectError as error:
        raise NotMeasured(f"{host.name}: {host_key.problem(host, error) or one_line(str(error))}") from None
    except (PyinfraError, *LOST) as error:
        raise NotMeasured(f"{host.name}: {one_line(str(error)) or type(error).__name__}") from None
    finally:
        if host.connected:
            host.disconnect()


def _measure(given: argparse.Namespace, place: Place, slo: Slo) -> BenchDocument:
    """One result. Raises NotMeasured, PlanError."""
    load = _Load(given, place, slo)
    if given.profile == "smoke":
        phases, slo_of_it, capacity = load.smoke(), None, None
    elif given.profile == "interactive":
        phases, slo_of_it, capacity = (load.at(given.rate),), slo, None
    else:
        tried: list[Measured] = []

        def keeps(rate: float) -> bool:
            found = load.at(rate)
            tried.append(found.model_copy(update={"within_slo": benched.within(found.figures)}))
            return bool(tried[-1].within_slo)

        capacity = benched.highest(keeps, given.rate)
        phases, slo_of_it = tuple(sorted(tried, key=lambda each: each.rate or 0)), slo
    return BenchDocument(
        at=bench_results.now(),
        host=place.host,
        # the profile's name, as the gate writes it; of an address what its door says
        model=place.release.settings.model if place.release else load.model,
        release=load.release,
        gpu=place.gpu,
        gpus=place.gpus,
        profile=given.profile,
        tool=load.tool,
        seed=given.seed,
        ignore_eos=load.ignore_eos,
        slo=slo_of_it,
        capacity_per_s=None if capacity is None else round(capacity, 3),
        phases=phases,
    )


class _Load:
    """Requests to one place, by our own client or by AIPerf; and what was found of the door meanwhile."""

    def __init__(self, given: argparse.Namespace, place: Place, slo: Slo) -> None:
        self.given, self.place, self.slo = given, place, slo
        self.model, self.release, self.ignore_eos, self.tool = given.model, "", True, bench_results.TOOL
        self.options = [*(["--model", given.model] if given.model else [])]
        if given.key_variable:
            self.options += ["--key-variable", given.key_variable]

    def smoke(self) -> tuple[Measured, ...]:
        """Our own client alone: it is what the gate uses."""
        phases = smoke(self.given.seed)
        return bench_results.measured(phases, self._timed(phases, speed.SECONDS))

    def at(self, rate: float) -> Measured:
        """One rate. Raises NotMeasured, PlanError."""
        phase = at_rate(self.given.seed, rate, self.given.seconds, MAX_TOKENS[self.given.profile])
        if self.given.aiperf:
            return Measured(name=phase.name, rate=rate, figures=self._by_aiperf(phase, rate))
        timings = self._timed([phase], self.given.seconds + LAST_SECONDS)
        return bench_results.measured([phase], timings, self.slo, rate)[0]

    def _timed(self, phases: Sequence[benched.Phase], limit_s: float) -> list[benched.Timing]:
        about, timings = bench_results.timed(self.place.url, phases, limit_s, self.options)
        self.model, self.release = str(about["model"]), str(about["release"])
        self.ignore_eos = bool(about["ignore_eos"])
        return timings

    def _by_aiperf(self, phase: benched.Phase, rate: float) -> Figures:
        if not self.release:
            # the model's name, its release, and what it takes
            self._timed([benched.Phase("first", 1, phase.requests[:1])], LAST_SECONDS)
        key = os.environ.get(self.given.key_variable) if self.given.key_variable else None
        with aiperf.place() as folder:
            told = aiperf.configuration(
                self.place.url,
                self.model,
                phase,
                rate,
                self.given.seed,
                self.slo,
                self.ignore_eos,
                self.given.tokenizer,
                folder,
            )
            limit = self.given.seconds + LAST_SECONDS
            version, figures = aiperf.measured(self.given.aiperf, told, phase, Path(folder), limit, key)
        self.tool = f"aiperf {version}"
        return figures


def _record(host: Host | None, place: Place, document: BenchDocument) -> None:
    """The host remembers the figures, if its release is the one that was measured. Raises PlanError."""
    assert host is not None and place.release is not None
    release = place.release
    alone, together = document.phase("alone"), document.phase("together")
    assert alone is not None and together is not None
    if document.release != release.id or alone.errors or together.errors or alone.ttft_ms is None:
        found = f"release {document.release}, {alone.errors + together.errors} failed requests"
        expected = f"release {release.id} of the inventory, and none"
        raise PlanError("--record", found, expected, "deploy first", reference="not-recorded")
    found_speed = speed.Speed(alone.ttft_ms.p50, together.tokens_per_s)
    measured(host, release.settings, release.id, speed.recorded(release, found_speed))


def _compare(given: argparse.Namespace) -> int:
    """Two results. Raises PlanError."""
    if len(given.words) != 3:
        raise PlanError(
            "compare", f"{len(given.words) - 1} files", "two results, A and B", reference="wrong-usage"
        )
    if not 0 <= given.allowed < 1:
        raise PlanError("--allowed", given.allowed, "a part from 0 to 1", reference="wrong-usage")
    one, two = (bench_results.read(Path(word)) for word in given.words[1:])
    found = bench_result.compare(one, two, given.allowed)
    if given.page:
        text = bench_page.svg(found) if given.page.suffix == ".svg" else bench_page.page(found)
        try:
            given.page.parent.mkdir(parents=True, exist_ok=True)
            given.page.write_text(text, encoding="utf-8")
        except OSError as error:
            expected = "a file that can be written"
            raise PlanError(
                "--page", f"{given.page}: {error.strerror}", expected, reference="not-written"
            ) from None
    if given.json:
        print(json.dumps(bench_result.as_json(found), indent=2))
    else:
        print("\n".join(bench_result.lines(found)))
    return 1 if found.worse else 0


if __name__ == "__main__":
    sys.exit(main())
