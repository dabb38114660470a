"""Reads a host's health and checks it against the plan: the part of the preflight that a deploy also runs."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime
from functools import cache

from pyinfra import host, state
from pyinfra.api.exceptions import PyinfraError

from operations import pyinfra_patches, rollout, shorter_output
from operations.facts.host_health import HostHealth
from operations.intake.secrets import SecretMissing, hub_token
from operations.plan import PlanError, Release, Settings, plan_release
from operations.plan.inventory.services import machine_of
from operations.plan.inventory.settings import from_host_data
from operations.plan.machine import docker_host
from operations.plan.observed.health import Health, HubAnswer
from operations.plan.observed.observed import Observed
from operations.plan.preflight import checks as preflight
from operations.plan.preflight import sources
from operations.plan.preflight.check import Check, Subject
from operations.plan.profile.profiles import Profile, load_profile
from operations.pyinfra_patches import data_of
from operations.remote.detached import LOST

ASK_SECONDS = 20  # the script itself ends after 8
HUB_SECONDS = 5
# warnings of the plan, which the probe has already printed
_SAID = ("version floors", "GPU driver", "disk space", "host memory")


def fits(release: Release, observed: Observed) -> bool:
    """
    Whether the host fits the release, as far as can be checked. Prints every mismatch together.

    Changes nothing. A host with a failed check is excluded from the run and keeps its running release.
    """
    subject = Subject(
        release.settings,
        release.profile,
        release,
        asked(
            release.settings,
            release.profile,
            observed.os_major,
            docker_host.root_of(observed.daemon_json, release.docker_settings),
        ),
        observed,
        hub_answer(release.settings, release.profile) if _downloads(release, observed) else None,
        today=today(),
        beside=beside(release, observed),
    )
    found = preflight.of_deploy(preflight.checks(subject))
    shorter_output.tell(_said(found), any(check.verdict != "ok" for check in found), "preflight")
    failed = [check.name for check in found if check.verdict == "failed"]
    if failed:
        rollout.leave_out(
            f"preflight: found {len(failed)} failed ({', '.join(failed)}), expected none; fix what the rows above name, "
            "or name a check in preflight_waived; nothing was changed"
        )
    return not failed


def beside(release: Release, observed: Observed) -> tuple[Release, ...]:
    """What the host's other services in this run become: it is made at the same time. One without a plan makes nothing."""
    if not release.settings.services:
        return ()
    found = []
    chosen = pyinfra_patches.hosts_of_run(state)
    for each in host.inventory:
        if each.name in chosen and each.name != host.name and machine_of(each.name) == machine_of(host.name):
            with suppress(PlanError):
                settings = from_host_data(data_of(each), each.name)
                found.append(
                    plan_release(
                        settings, observed.gpus, release.os_major, None, observed.selinux is not None
                    )
                )
    return tuple(found)


def say_what_else(error: PlanError, observed: Observed | None = None) -> None:
    """For a host without a plan: print what else does not fit, so that everything can be fixed in one go."""
    try:
        settings = from_host_data(data_of(host), host.name)
        profile = load_profile(settings.model, settings.profile_overrides)
        health = asked(settings, profile, observed.os_major if observed else "")
        subject = Subject(settings, profile, None, health, observed, problem=error, today=today())
        found = [check for check in preflight.of_deploy(preflight.checks(subject)) if check.name != "release"]
    except (PlanError, PyinfraError, *LOST):
        return  # the error itself is printed in any case
    shorter_output.tell(_said(found), any(check.verdict != "ok" for check in found), "preflight")


def asked(
    settings: Settings, profile: Profile, os_major: str, docker_root: str = "", as_root: bool = True
) -> Health:
    """
    The host's health, read in one round trip. Empty if that fails; this alone does not fail the host.

    + docker_root: docker's data directory; empty: the inventory's setting, or docker's default
    """
    urls = list(sources.sources(settings, profile, os_major or "9").values())
    health: Health | None = host.get_fact(
        HostHealth,
        data_root=settings.data_root,
        docker_root=docker_root or docker_host.root_of("", settings.docker_daemon_settings),
        names=sources.names(urls),
        urls=urls,
        _timeout=ASK_SECONDS,
        _ignore_errors=True,
        **({} if as_root else {"_sudo": False}),
    )
    return health or Health()


def today() -> date:
    """Today's date in UTC."""
    return datetime.now(UTC).date()


def hub_answer(settings: Settings, profile: Profile) -> HubAnswer | None:
    """The hub's answer to the operator's token, queried from this machine. None if nothing is gated."""
    for weights in sources.gated_weights(profile):
        answer = _ask_hub(settings.hub_endpoint, weights.repository, weights.revision)
        if answer.verdict != "ok":
            return answer
    return answer if sources.gated_weights(profile) else None


@cache
def _ask_hub(endpoint: str, repository: str, revision: str) -> HubAnswer:
    """Query the hub once for all hosts. Only the hub gets the token: a redirect to another host is not followed."""
    # imported here: a run that serves only open models does not need it
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError

    try:
        token = hub_token()
    except SecretMissing as error:
        return HubAnswer("failed", str(error))
    url = hf_hub_url(repository, "config.json", revision=revision, endpoint=endpoint)
    try:
        answer = get_hf_file_metadata(url, token=token, timeout=HUB_SECONDS)
    except (EntryNotFoundError, RevisionNotFoundError):
        pass  # the hub accepted the token; the download reports what is missing
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        if code == 401:
            then = "export HF_TOKEN with one it knows"
            return HubAnswer("failed", "HTTP 401: the hub does not know the token", then)
        if code == 403:
            found = "HTTP 403, the token has no access to this gated model"
            return HubAnswer("failed", found, f"accept its licence on its page: {endpoint}/{repository}")
        return HubAnswer("not checked", f"the hub answered this machine with HTTP {code}")
    except Exception as error:
        # an HTTP library may raise anything; its message could contain the request
        return HubAnswer("not checked", f"the hub was not reached from this machine ({type(error).__name__})")
    else:
        if answer.commit_hash is None:
            # a login page, a proxy or a plain file server accepts any token
            said = "the answer is not from a hub: no header X-Repo-Commit"
            return HubAnswer("not checked", said, "check hub_endpoint")
    return HubAnswer("ok", "accepted by the hub")


def _downloads(release: Release, observed: Observed) -> bool:
    """Whether weights are missing: only then is the hub queried."""
    stored = (observed.artifacts.get((s.artifact.kind, s.artifact.key)) for s in release.recipe.downloads)
    return any(artifact is None or artifact.problem for artifact in stored)


def _said(found: list[Check]) -> str:
    """What a deploy prints: failed checks, warnings, and the names of the checks that could not run."""
    counts = {
        word: sum(1 for c in found if c.verdict == word)
        for word in ("ok", "warning", "failed", "not checked")
    }
    lines = ["preflight: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)]
    shown = [c for c in found if c.verdict == "failed" or (c.verdict == "warning" and c.name not in _SAID)]
    if shown:
        lines += [f"  {row}" for row in preflight.table(shown)]
    if unchecked := [check.name for check in found if check.verdict == "not checked"]:
        lines.append(f"  not checked: {', '.join(unchecked)}; python -m operations.preflight says why")
    return "\n".join(f"{host.print_prefix}{line}" for line in lines)
