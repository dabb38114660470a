"""A running server: start it, ask it what is known, watch it, and remember what was found."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from pyinfra import logger
from pyinfra.api.host import Host

from operations.detached import follow, printed, shell
from operations.golden import proven, seconds_of
from operations.plan.profile_tables import Golden, SearchGolden
from operations.plan.release import Server
from operations.plan.settings import Settings
from operations.scripts import host_script
from operations.tunnel import forwarded

# A start is over when it succeeded, or failed once: systemd would try again three times, a quarter of a minute apart,
# which is right at boot and only a delay where someone watches.
STARTED = ("running", "dead", "failed", "exited", "auto-restart")
FOLLOWED = 30  # seconds of a soak that one command watches


def start(
    host: Host, settings: Settings, service: str = "", link: str = "current", join: bool = False
) -> str:
    """
    Restart a server's unit and wait for it; what went wrong, or nothing.

    + service, link: which server, as `operations.plan.release.Server` has them; the one that stays by default
    + join: a start that is on its way already is only waited for: docker's restart starts what needs it, too
    """
    service = service or settings.service_name
    unit = f"{service}.service"
    began = time.monotonic()
    variables = {
        "SERVICE": service,
        "FRONT": f"{settings.service_name}-front",
        "RELEASE": f"{settings.data_root}/{link}",
        "VERB": "start" if join else "restart",
    }
    ok, output = shell(host, host_script("start_server.sh", variables))
    if not ok:
        return f"{unit} did not start: {' '.join(output[-3:])}"
    started = printed(output, "started")
    ended = follow(host, unit, service, printed(output, "cursor"), STARTED, began)
    if ended.properties.get("SubState") == "running":
        return ""
    shell(host, f"systemctl stop {unit}")
    # The reason is among the first lines: a refused option is followed by pages of usage text.
    _, written = shell(
        host,
        f"journalctl --quiet --no-pager --output=cat --unit={unit} --since=@{started} "
        "| grep -i -E -m 12 '^E[0-9]{4} |error|unrecognized|invalid|failed|expected|found' || :",
    )
    for line in written:
        logger.error(f"{host.print_prefix}    {line[:300]}")
    return f"{unit} did not get ready, expected its models to answer; see: journalctl --unit {unit}"


def answered(host: Host, server: Server, requests: Iterable[Golden | SearchGolden], seed: str = "") -> str:
    """
    Ask golden requests, one after the other; what is wrong with the first answer that is not the known one, or nothing.

    + server: the address and the ports as the host reaches them
    + seed: the documents among which a search finds its picture
    """
    with forwarded(host, server.address, server.ports[1]) as endpoint:
        for golden in requests:
            answer, problem = proven(endpoint, golden, seed)
            if problem:
                return problem
            shown = " ".join(answer.split())[:90]
            logger.info(f"{host.print_prefix}{golden.model} gives the golden answer: {shown}")
    return ""


def answer_seconds(host: Host, server: Server, requests: Iterable[Golden | SearchGolden]) -> float | None:
    """The median time of the first golden request of a language model, in seconds; None where it gives no answer."""
    golden = next((request for request in requests if isinstance(request, Golden)), None)
    if golden is None:
        return None
    with forwarded(host, server.address, server.ports[1]) as endpoint:
        return seconds_of(endpoint, golden)


def judged(host: Host, data_root: str, release_id: str, verdict: str, reason: str = "") -> None:
    """Remember on the host what became of a release: proven, failed or withdrawn, and why."""
    variables = {
        "DATA_ROOT": data_root,
        "RELEASE": release_id,
        "VERDICT": verdict,
        "REASON": " ".join(reason.split())[:300],
    }
    shell(host, host_script("judge.sh", variables))


def measured(host: Host, settings: Settings, release_id: str, figures: Mapping[str, float | None]) -> None:
    """
    Remember on the host what was measured of a release, which runs alone now; the next swap is planned with it.

    + figures: load_s, answer_s, in seconds; None leaves what was known before
    """
    known = [f"{name}={value:.3f}" for name, value in figures.items() if value is not None]
    gpus = settings.gpu_ids if isinstance(settings.gpu_ids, str) else ",".join(map(str, settings.gpu_ids))
    variables = {
        "DATA_ROOT": settings.data_root,
        "RELEASE": release_id,
        "MEASURED": " ".join(known),
        "GPUS": gpus,
    }
    shell(host, host_script("measure.sh", variables))


def soaked(host: Host, service: str, seconds: int) -> str:
    """Watch the server for a while; how it ended, or nothing."""
    if seconds:
        logger.info(f"{host.print_prefix}watching it for {seconds} s")
    began = 0
    while began < seconds:
        # in parts, so that a lost connection is noticed
        part = min(FOLLOWED, seconds - began)
        variables = {"SERVICE": service, "SOAK": str(part)}
        ok, output = shell(host, host_script("soak.sh", variables), timeout=part + 30)
        if not ok:
            return " ".join(output[-1:]) or "the host did not answer while the server was watched"
        began += part
    return ""
