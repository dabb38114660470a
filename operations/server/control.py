"""A running server: start it, send it golden requests, watch it, and record the results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from pyinfra import logger
from pyinfra.api.host import Host

from operations.plan.errors import one_line
from operations.plan.inventory.settings import Settings
from operations.plan.profile.tables import Golden, SearchGolden
from operations.plan.serving.recorded import Answer, answer_to
from operations.plan.serving.servers import Server
from operations.remote.detached import done, follow, printed, said, shell
from operations.remote.refusal import Failed
from operations.remote.tunnel import forwarded
from operations.scripts import host_script
from operations.server.golden import proven, seconds_of

# A start is over when it has succeeded, or failed once. systemd would try three times more, 15 s apart: right at boot,
# but only a delay while an operator waits.
STARTED = ("running", "dead", "failed", "exited", "auto-restart")
FOLLOWED = 30  # seconds of a soak that one command watches


def start(
    host: Host, settings: Settings, service: str = "", link: str = "current", join: bool = False
) -> None:
    """
    Restart a server's unit and wait for it.

    + service, link: which server, as in `operations.plan.serving.servers.Server`; the main server by default
    + join: only wait for a start that is already in progress: a restart of docker also starts what requires it

    Raises Failed where it does not get ready.
    """
    service = service or settings.service_name
    unit = f"{service}.service"
    began = time.monotonic()
    variables = {
        "SERVICE": service,
        "FRONT": f"{settings.service_name}-front",
        "RELEASE": f"{settings.state_root}/{link}",
        "VERB": "start" if join else "restart",
    }
    ok, output = shell(host, host_script("start_server.sh", variables))
    if not ok:
        raise Failed(f"{unit} did not start: {said(output, 3)}")
    started = printed(output, "started")
    ended = follow(host, unit, service, printed(output, "cursor"), STARTED, began)
    if ended.properties.get("SubState") == "running":
        return
    shell(host, f"systemctl stop {unit}")
    # The reason is among the first lines: after a rejected option come pages of usage text.
    _, written = shell(
        host,
        f"journalctl --quiet --no-pager --output=cat --unit={unit} --since=@{started} "
        "| grep -i -E -m 12 '^E[0-9]{4} |error|unrecognized|invalid|failed|expected|found' || :",
    )
    for line in written:
        logger.error(f"{host.print_prefix}    {one_line(line)[:300]}")
    raise Failed(f"{unit} did not get ready, expected its models to answer; see: journalctl --unit {unit}")


def answered(
    host: Host, server: Server, requests: Sequence[Golden | SearchGolden], seed: str = ""
) -> list[Answer]:
    """
    Send golden requests, one after the other, and compare the answers. Returns those of language models.

    + server: the address and the ports as the host reaches them
    + seed: the documents that a search request takes its picture from

    Raises Failed at the first wrong answer.
    """
    texts = [request for request in requests if isinstance(request, Golden)]
    answers: list[Answer] = []
    with forwarded(host, server.address, server.ports[1]) as endpoint:
        for model, answer, problem, likely in proven(endpoint, requests, seed):
            if problem:
                raise Failed(problem)
            if len(answers) < len(texts):
                answers.append(answer_to(texts[len(answers)], answer, likely))
            shown = one_line(answer)[:90]
            logger.info(f"{host.print_prefix}{model} gives the golden answer: {shown}")
    return answers


def answer_seconds(host: Host, server: Server, requests: Iterable[Golden | SearchGolden]) -> float | None:
    """The median time of a language model's first golden request, in seconds. None if it gets no answer."""
    golden = next((request for request in requests if isinstance(request, Golden)), None)
    if golden is None:
        return None
    with forwarded(host, server.address, server.ports[1]) as endpoint:
        return seconds_of(endpoint, golden)


def judged(host: Host, settings: Settings, release_id: str, verdict: str, reason: str = "") -> None:
    """Record a release's verdict on the host: proven, failed or withdrawn, and why."""
    variables = {
        "DATA_ROOT": settings.data_root,
        "STATE_ROOT": settings.state_root,
        "RELEASE": release_id,
        "VERDICT": verdict,
        "REASON": one_line(reason)[:300],
    }
    shell(host, host_script("judge.sh", variables))


def measured(
    host: Host, settings: Settings, release_id: str, figures: Mapping[str, float | str | None]
) -> None:
    """
    Record on the host what was measured of a release that now runs alone. The next swap is planned with it.

    + figures: load_s, answer_s, in seconds, and those of operations.server.speed; None keeps the earlier value
    """
    known = [
        f"{name}={value if isinstance(value, str) else f'{value:.3f}'}"
        for name, value in figures.items()
        if value is not None
    ]
    gpus = settings.gpu_ids if isinstance(settings.gpu_ids, str) else ",".join(map(str, settings.gpu_ids))
    variables = {
        "DATA_ROOT": settings.data_root,
        "RELEASE": release_id,
        "MEASURED": " ".join(known),
        "GPUS": gpus,
    }
    shell(host, host_script("measure.sh", variables))


def soaked(host: Host, service: str, seconds: int) -> None:
    """Watch the server for some seconds. Raises Failed if it ends meanwhile."""
    if seconds:
        logger.info(f"{host.print_prefix}watching it for {seconds} s")
    began = 0
    while began < seconds:
        # in parts, so that a lost connection is noticed
        part = min(FOLLOWED, seconds - began)
        variables = {"SERVICE": service, "SOAK": str(part)}
        silent = "the host did not answer while the server was watched"
        done(host, host_script("soak.sh", variables), timeout=part + 30, silent=silent)
        began += part
