"""A host asked for its health, and judged by the plan: the part of the preflight that a deploy makes, too."""

from __future__ import annotations

from datetime import UTC, date, datetime
from functools import cache

from pyinfra import host, logger
from pyinfra.api.exceptions import PyinfraError

from operations import rollout
from operations.detached import LOST
from operations.facts.host_health import HostHealth
from operations.plan import PlanError, Release, Settings, preflight
from operations.plan.health import Health, HubAnswer
from operations.plan.observed import Observed
from operations.plan.preflight import Check, Subject
from operations.plan.profiles import Profile, load_profile
from operations.plan.settings import from_host_data
from operations.secrets import SecretMissing, hub_token

ASK_SECONDS = 20  # the script itself ends after 8
HUB_SECONDS = 5
# warnings that the look has printed already, of the plan's own
_SAID = ("version floors", "GPU driver", "disk space", "host memory")


def fits(release: Release, observed: Observed) -> bool:
    """
    Whether the host fits the release, as far as can be checked; prints every mismatch at once.

    Changes nothing. A host with a failed check is left out of the run, with what it serves.
    """
    subject = Subject(
        release.settings,
        release.profile,
        release,
        asked(release.settings, release.profile, observed.os_major),
        observed,
        hub_answer(release.settings, release.profile) if _downloads(release, observed) else None,
        today=today(),
    )
    found = preflight.of_deploy(preflight.checks(subject))
    logger.info(_said(found))
    failed = [check.name for check in found if check.verdict == "failed"]
    if failed:
        rollout.leave_out(
            f"preflight: found {len(failed)} failed ({', '.join(failed)}), expected none; mend what the rows above name, "
            "or name a check in preflight_waived; nothing was changed"
        )
    return not failed


def say_what_else(error: PlanError, observed: Observed | None = None) -> None:
    """A host that cannot be planned for: print what else does not fit, so that it is mended in one go."""
    try:
        settings = from_host_data(host.data.dict(), host.name)  # type: ignore[no-untyped-call]
        profile = load_profile(settings.model, settings.profile_overrides)
        health = asked(settings, profile, observed.os_major if observed else "")
        problem = str(error).removeprefix(f"{host.name}: ")
        subject = Subject(settings, profile, None, health, observed, problem=problem, today=today())
        found = [check for check in preflight.of_deploy(preflight.checks(subject)) if check.name != "release"]
    except (PlanError, PyinfraError, *LOST):
        return  # the error itself is said in any case
    logger.info(_said(found))


def asked(settings: Settings, profile: Profile, os_major: str, as_root: bool = True) -> Health:
    """The host's health, in one round trip; nothing is known of it where that fails, and the host is none the worse."""
    urls = list(preflight.sources(settings, profile, os_major or "9").values())
    health: Health | None = host.get_fact(
        HostHealth,
        data_root=settings.data_root,
        docker_root=str(settings.docker_daemon_settings.get("data-root", "")),
        names=preflight.names(urls),
        urls=urls,
        _timeout=ASK_SECONDS,
        _ignore_errors=True,
        **({} if as_root else {"_sudo": False}),
    )
    return health or Health()


def today() -> date:
    """The day it is, everywhere the same."""
    return datetime.now(UTC).date()


def hub_answer(settings: Settings, profile: Profile) -> HubAnswer | None:
    """What the hub says of the operator's token, asked from this machine; None where nothing is gated."""
    for weights in preflight.gated_weights(profile):
        answer = _ask_hub(settings.hub_endpoint, weights.repository, weights.revision)
        if answer.verdict != "ok":
            return answer
    return answer if preflight.gated_weights(profile) else None


@cache
def _ask_hub(endpoint: str, repository: str, revision: str) -> HubAnswer:
    """Asked once for all hosts. The token goes to the hub alone: a redirect to another host is not followed."""
    # imported here: a run of hosts that serve open models does without
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError

    try:
        token = hub_token()
    except SecretMissing as error:
        return HubAnswer("failed", str(error))
    url = hf_hub_url(repository, "config.json", revision=revision, endpoint=endpoint)
    try:
        get_hf_file_metadata(url, token=token, timeout=HUB_SECONDS)
    except (EntryNotFoundError, RevisionNotFoundError):
        pass  # the token was taken; what is missing is said by the download
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
        # whatever an HTTP library may raise; its text could hold the request
        return HubAnswer("not checked", f"the hub was not reached from this machine ({type(error).__name__})")
    return HubAnswer("ok", "taken by the hub")


def _downloads(release: Release, observed: Observed) -> bool:
    """Whether weights are missing: only then the hub is asked."""
    stored = (observed.artifacts.get((s.artifact.kind, s.artifact.key)) for s in release.recipe.downloads)
    return any(artifact is None or artifact.problem for artifact in stored)


def _said(found: list[Check]) -> str:
    """What a deploy prints of it: what failed, what to know, and the names of what was not checked."""
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
