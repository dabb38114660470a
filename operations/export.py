"""Prints what another engine needs to serve a release of the inventory, or to send requests to its hosts. Connects to no host.

python -m operations.export kubernetes --image registry.example/triton@sha256:…     # Deployment, Service, disruption budget
python -m operations.export slurm --limit gpu-1 --sbatch partition=gpu              # a batch job
python -m operations.export llm-d                                                   # endpoints.yaml
python -m operations.export dynamo --image … --claim models                         # DynamoGraphDeployment
python -m operations.export prometheus                                              # a list for file_sd

Exit codes: 0 printed, 2 bad input.
"""

from __future__ import annotations

if __name__ == "__main__":
    # before anything else is imported, as for the preflight
    from gevent import monkey

    monkey.patch_all()

import argparse
import re
import sys
from collections.abc import Iterable, Sequence

from pyinfra.api.host import Host

from operations import inputs, preflight
from operations.intake.refusing import refusing
from operations.plan.capacity.gpu import Gpu
from operations.plan.catalog.shapes import SHAPES
from operations.plan.errors import PlanError
from operations.plan.explain import gpu_name, gpus_from
from operations.plan.export import dynamo, endpoints, kubernetes, served, slurm
from operations.plan.inventory.settings import Settings, from_host_data
from operations.plan.planning import plan_release, triton_ports
from operations.plan.profile.profiles import LlmApiProfile, Profile, load_profile
from operations.plan.release import Release
from operations.pyinfra_patches import data_of
from operations.watched_hosts import entries_of, serves_models

PROGRAM = "python -m operations.export"
INVENTORY = "inventories/oci.py"
FORMATS = ("kubernetes", "slurm", "llm-d", "dynamo", "prometheus")
# option -> the formats that take it
_OPTIONS = {
    "image": ("kubernetes", "slurm", "dynamo"),
    "gpus": ("kubernetes", "slurm", "dynamo"),
    "claim": ("kubernetes", "dynamo"),
    "namespace": ("kubernetes", "dynamo"),
    "leader_worker_set": ("kubernetes",),
    "nccl": ("kubernetes", "slurm"),
    "sbatch": ("slurm",),
}
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_DIRECTIVE = re.compile(r"[a-z][a-z-]*(=[A-Za-z0-9._:,%@/-]+)?")


def parser(prog: str = PROGRAM) -> argparse.ArgumentParser:
    """The program's options. + prog: the name that its messages use"""
    parser = argparse.ArgumentParser(
        prog=prog, description="print what another engine needs of a release or of the hosts; connects to no host"
    )  # fmt: skip
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("--inventory", default=INVENTORY, metavar="FILE", help=f"default: {INVENTORY}")
    parser.add_argument(
        "--limit", action="append", default=[], help="only these hosts or this group; may be repeated"
    )
    parser.add_argument(
        "--image",
        default="",
        metavar="REGISTRY/NAME@sha256:DIGEST",
        help="the serving image, if the hosts make it",
    )
    parser.add_argument(
        "--gpus", default="", metavar="NAME:COUNT", help="of hosts whose shape the inventory does not name"
    )
    parser.add_argument(
        "--claim",
        default="",
        metavar="NAME",
        help="a PersistentVolumeClaim with a copy of data_root; default: the nodes' own paths",
    )
    parser.add_argument("--namespace", default="default", metavar="NAME", help="default: default")
    parser.add_argument(
        "--leader-worker-set", action="store_true", help="a LeaderWorkerSet in place of the Deployment"
    )
    parser.add_argument(
        "--nccl", action="store_true", help="also NCCL's settings of the shape, for engines that span hosts"
    )
    parser.add_argument(
        "--sbatch", action="append", default=[], metavar="KEY[=VALUE]", help="a directive, such as partition=gpu"
    )  # fmt: skip
    inputs.add_data(parser)
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = PROGRAM) -> int:
    """The command; see the exit codes at the top of this file."""
    given = parser(prog).parse_args(arguments)
    inputs.quieten()
    with refusing():
        _check(given)
        _, inventory, options = preflight.inventory_of(given)
        everyone = inputs.check(inventory, options)
        hosts = [each for each in everyone if serves_models(each)]
        if not hosts:
            raise PlanError("inventory", "no host that serves a model", "at least one", where=given.inventory)
        if given.format == "prometheus":
            entries = entries_of(everyone)
            text = endpoints.prometheus(entries)
            _warn(remark for entry in entries for remark in entry.remarks)
        elif given.format == "llm-d":
            found = [_endpoint(each) for each in hosts]
            text = endpoints.llm_d(found)
            _warn(endpoints.remarks(found))
        else:
            text = of_release(hosts, given)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        print(f"tritonhost: standard output: {error.strerror or 'an error'}", file=sys.stderr)
        return 2
    return 0


def _warn(remarks: Iterable[str]) -> None:
    for remark in remarks:
        print(f"tritonhost: warning: {remark}", file=sys.stderr)


def _check(given: argparse.Namespace) -> None:
    """Options that the format does not take, and names that end up in another program's file. Raises PlanError."""
    for name, formats in _OPTIONS.items():
        value = getattr(given, name)
        if value and value != "default" and given.format not in formats:
            option = f"--{name.replace('_', '-')}"
            raise PlanError(
                option, f"it with {given.format}", f"it with {' or '.join(formats)}", reference="wrong-option"
            )
    for name in ("claim", "namespace"):
        value = getattr(given, name)
        if value and not _DNS_NAME.fullmatch(value):
            raise PlanError(f"--{name}", value, "a name of lower-case letters, digits and -")
    if given.image and not served.IMAGE.fullmatch(given.image):
        raise PlanError("--image", given.image, "REGISTRY/NAME@sha256: and 64 hexadecimal digits")
    for each in given.sbatch:
        if not _DIRECTIVE.fullmatch(each):
            raise PlanError("--sbatch", each, "KEY or KEY=VALUE without blanks, such as partition=gpu")


def _settings(host: Host) -> tuple[Settings, Profile]:
    settings = from_host_data(data_of(host), host.name)
    return settings, load_profile(settings.model, settings.profile_overrides)


def _endpoint(host: Host) -> endpoints.Endpoint:
    settings, profile = _settings(host)
    reached = str(data_of(host).get("ssh_hostname", host.name))
    return endpoints.endpoint(host.name, settings, reached, triton_ports(settings, profile))


def of_release(hosts: Sequence[Host], given: argparse.Namespace) -> str:
    """The text for each release that the hosts have. Raises PlanError."""
    found: dict[str, tuple[Release, list[str]]] = {}
    for host in hosts:
        settings, profile = _settings(host)
        try:
            release = plan_release(settings, _gpus(settings, given.gpus), profile=profile)
        except PlanError as error:
            raise error.placed(host=host.name) from None
        found.setdefault(release.id, (release, []))[1].append(host.name)
    images = {release.image.key for release, _ in found.values()}
    if (given.image and len(images) > 1) or (given.format == "slurm" and len(found) > 1):
        shown = ", ".join(f"{release.id} of {', '.join(names)}" for release, names in found.values())
        raise PlanError(
            "inventory", f"{len(found)} releases: {shown}", "one", "choose its hosts with --limit"
        )
    texts, taken = [], set()
    for release, names in found.values():
        if (name := served.dns_name(release.settings)) in taken:
            then = "choose the hosts of one with --limit"
            raise PlanError("inventory", f"two releases that are called {name}", "one", then)
        taken.add(name)
        one = served.served(
            release, given.image if given.format != "dynamo" else given.image or "none", tuple(names)
        )
        texts.append(_text(release, one, given))
    return "".join(texts)


def _text(release: Release, one: served.Served, given: argparse.Namespace) -> str:
    if given.format == "kubernetes":
        return kubernetes.manifests(
            one, len(one.hosts), given.namespace, given.claim, given.leader_worker_set, given.nccl
        )
    if given.format == "dynamo":
        ranks = max(release.profile.ranks, release.profile.gpus_needed)
        return dynamo.graph(one, ranks, given.image, len(one.hosts), given.namespace, given.claim)
    leader, worker = release.rank_commands
    ranks = release.profile.ranks
    if isinstance(release.profile, LlmApiProfile) and release.profile.gpus_needed > 1:
        # the LLM API starts its own ranks, in the tasks that wait for them: tensorrtllm_backend, docs/llmapi.md
        ranks, leader = release.profile.gpus_needed, ["trtllm-llmapi-launch", *leader]
        worker = leader
    directives = {key: value for key, _, value in (each.partition("=") for each in given.sbatch)}
    return slurm.batch_job(one, ranks, leader, worker, directives, given.nccl)


def _gpus(settings: Settings, text: str) -> tuple[Gpu, ...]:
    """The GPUs that a host of the shape has, or those of --gpus. Raises PlanError."""
    if text:
        return gpus_from(text)
    if not settings.shape:
        then = "write shape into the inventory, or name them with --gpus"
        raise PlanError("shape", "nothing", "one of OCI's GPU shapes", then, reference="no-shape")
    row = SHAPES[settings.shape]
    return gpus_from(f"{gpu_name(row)}:{row.gpu_count}")


if __name__ == "__main__":
    sys.exit(main())
