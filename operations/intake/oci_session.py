"""Signed requests to OCI: the signing key, the time limits, and a one-line message for each failure.

The oci package is imported inside functions: it takes a third of a second, which a static inventory saves.
"""

from __future__ import annotations

import configparser
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from operations.plan.errors import PlanError, Said, suggestion
from operations.plan.inventory.oci import OciAccess

CONNECT_TIMEOUT_S = 10
# The SDK's own strategy, limited: at the fourth failure, or after a minute and a half, the run reports why it ends.
ATTEMPTS = 4
LONGEST_S = 90
FIRST_WAIT_S = 1.0  # doubled at each attempt, plus a random delay of up to a second
MOST_PAGES = 1000


class EndlessPages(ValueError):
    """A list without an end: the service returns the same page again and again."""


@dataclass(frozen=True)
class Session:
    """An authenticated way to OCI's services in one region."""

    access: OciAccess
    where: str
    region: str
    config: dict[str, Any] = field(repr=False)
    signer: Any = field(repr=False)
    attempts: int = field(default_factory=lambda: ATTEMPTS)  # of each request

    @property
    def tries(self) -> str:
        """How often a request is made, in words."""
        return "one attempt" if self.attempts == 1 else f"{self.attempts} attempts"

    def client(self, kind: Any, service: str, gives_up: Callable[[Any], bool] | None = None) -> Any:
        """
        A client of one service, with bounded time and retries.

        + kind: the SDK's class
        + service: its name in a URL: iaas, identity, secrets.vaults
        + gives_up: whether an error stays the same within seconds, so that the request is not sent again
        """
        import oci

        endpoint = endpoint_of(self.access, service, self.region)
        return kind(
            self.config,
            signer=self.signer,
            timeout=(CONNECT_TIMEOUT_S, self.access.timeout_s),
            retry_strategy=retries(self.attempts, gives_up),
            # it would fail later requests with its own message
            circuit_breaker_strategy=oci.circuit_breaker.NoCircuitBreakerStrategy(),
            **({"service_endpoint": endpoint} if endpoint else {}),
        )


def endpoint_of(access: OciAccess, service: str, region: str) -> str | None:
    """A service's URL if the inventory sets one. None: the SDK's own for the region."""
    if access.endpoint is None:
        return None
    return access.endpoint.replace("{service}", service).replace("{region}", region)


def open_session(access: OciAccess, where: str) -> Session:
    """
    Read the key, or get one from the instance's metadata service.

    + where: the table that the settings come from, for errors

    Raises PlanError, in one line, if the configuration file, profile, key or token is missing or invalid, or if this
    machine is not an OCI instance. The line quotes none of their content.
    """
    import oci

    if access.auth == "instance_principal":
        signer = _instance_principal(access, where)
        of_instance = access.region or str(signer.region)
        return Session(access, where, of_instance, {"region": of_instance, "log_requests": False}, signer)

    config = _profile(access, where)
    region = access.region or str(config.get("region") or os.environ.get("OCI_REGION", ""))
    if not region:
        raise PlanError(
            f"{where} region", "nothing", "a region", f"add it to the profile {access.profile}, or here"
        )
    # log_requests would print headers and answers, including secrets
    config = {**config, "region": region, "log_requests": False}
    if access.auth == "session_token":
        return Session(access, where, region, config, _session_token(config, access, where))
    try:
        oci.config.validate_config(config)
    except oci.exceptions.InvalidConfig as error:
        wrong = ", ".join(f"{key} {problem}" for key, problem in sorted(error.errors.items()))
        then = "run: oci setup config"
        if config.get("security_token_file"):
            then = 'the profile holds a session: set auth = "session_token"'
        raise PlanError(_in_profile(access, where), wrong, "the keys of an API key", then) from None
    _check_key_file(config["key_file"], _in_profile(access, where))
    with _readable_key(access, where):
        signer = oci.signer.Signer(
            tenancy=config["tenancy"],
            user=config["user"],
            fingerprint=config["fingerprint"],
            private_key_file_location=config["key_file"],
            pass_phrase=config.get("pass_phrase"),
        )
        _check_rsa(signer.private_key)
    return Session(access, where, region, config, signer)


def retries(attempts: int | None = None, gives_up: Callable[[Any], bool] | None = None) -> Any:
    """
    The SDK's strategy for 429, 5xx and lost connections, with our bounds.

    + gives_up: errors that are not retried although the SDK would
    """
    import oci

    class Passing(oci.retry.retry_checkers.BaseRetryChecker):  # type: ignore[misc]
        """Does not retry an untrusted certificate, which the SDK treats as a lost connection."""

        def should_retry(self, exception: Any = None, response: Any = None, **_: Any) -> bool:
            if gives_up and exception is not None and gives_up(exception):
                return False
            return "CERTIFICATE_VERIFY_FAILED" not in str(exception)

    strategy = oci.retry.RetryStrategyBuilder(
        max_attempts=attempts or ATTEMPTS,
        total_elapsed_time_seconds=LONGEST_S,
        retry_base_sleep_time_seconds=FIRST_WAIT_S,
        decorrelated_jitter=FIRST_WAIT_S,
    ).get_retry_strategy()
    strategy.checkers.add_checker(Passing())
    return strategy


def all_pages(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> list[Any]:
    """
    Every item of a list operation.

    Not the SDK's own list_call_get_all_results: it wraps each page in a strategy of ten minutes, around the client's.
    """
    items: list[Any] = []
    for _ in range(MOST_PAGES):
        answer = call(*arguments, **keywords)
        items += answer.data
        if not answer.has_next_page:
            return items
        keywords["page"] = answer.next_page
    raise EndlessPages


@contextmanager
def answered(
    session: Session,
    what: str,
    policy: str,
    telling: bool = False,
    kinds: Iterable[tuple[Callable[[Any], bool], type[PlanError]]] = (),
) -> Iterator[None]:
    """
    Turn each failure of a request into one line: the request, what was found, what was expected, what to do next.

    + what: such as `list instances of ocid1…`
    + policy: the IAM statements that allow it
    + telling: the line has the service's own message, of a request without secrets
    + kinds: a test of the SDK's error, and the class that is raised for it in place of PlanError

    Raises PlanError.
    """
    import oci

    key = f"{session.where}: {what} in {session.region}"
    try:
        yield
    except oci.exceptions.ServiceError as error:
        kind = next((kind for test, kind in kinds if test(error)), PlanError)
        raise _of_service(error, key, session, policy, telling, kind) from None
    except (oci.exceptions.RequestException, oci.exceptions.ConnectTimeout) as error:
        raise _of_connection(error, key, session) from None
    except EndlessPages:
        found = f"more than {MOST_PAGES} pages"
        raise PlanError(key, found, "fewer", "is a proxy between? or name fewer compartments") from None
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, PlanError):
            raise
        # what the SDK raises for an answer that is not JSON, or not of the requested type
        raise PlanError(
            key,
            f"an answer that cannot be read ({type(error).__name__})",
            "OCI's JSON",
            "is a proxy between?",
        ) from None


def _of_service(
    error: Any, key: str, session: Session, policy: str, telling: bool, kind: type[PlanError]
) -> PlanError:
    # The service's message may quote the request. Its status and code mostly say as much, and the request id more.
    request = f"opc-request-id {error.request_id}" if error.request_id else "no opc-request-id"
    found = f"HTTP {error.status} {error.code or ''}".strip()
    if telling and error.message:
        found = Said(f"{found}: {error.message}")
    if error.status == 401:
        then = _clock(error.headers) or _whose(session)
        return kind(key, found, "a signature that OCI accepts", f"{then} ({request})")
    if error.status == 404 or error.status == 403:
        then = f"check the OCID and the region, or let an administrator add: {policy} ({request})"
        return kind(key, found, "a resource that exists and may be read", then)
    if error.status == 429:
        then = f"gave up after {session.tries}; run again later ({request})"
        return kind(key, found, "an answer", then)
    if error.status >= 500:
        then = f"gave up after {session.tries}; run again, see https://ocistatus.oraclecloud.com ({request})"
        return kind(key, found, "an answer", then)
    return kind(key, found, "an answer", request)


def _clock(headers: Any) -> str:
    """The usual reason for a rejected signature: a wrong clock, by the answer's date. OCI allows five minutes."""
    try:
        theirs = parsedate_to_datetime(headers.get("date") or "")
        ahead = round((datetime.now(UTC) - theirs).total_seconds())
    except (TypeError, ValueError):
        return ""
    if abs(ahead) < 240:
        return ""
    return (
        f"this machine's clock is {abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'} OCI's: "
        "set it (chronyc makestep)"
    )


def _whose(session: Session) -> str:
    access = session.access
    if access.auth == "session_token":
        return f"sign in again: oci session authenticate --profile-name {access.profile}"
    if access.auth == "instance_principal":
        return "is the instance in a dynamic group that a policy names?"
    return (
        f"is the public key of key_file among the API keys of the user of profile {access.profile}, with this "
        "fingerprint? a key that was just added takes a minute"
    )


def _of_connection(error: Exception, key: str, session: Session) -> PlanError:
    text = str(error)
    endpoint = session.access.endpoint or f"OCI in {session.region}"
    if "timed out" in text or "Timeout" in text or "timeout" in text:
        found = "no answer in time"
        limits = f"{session.tries} of at most {session.access.timeout_s} s, or {LONGEST_S} s in all"
        then = f"gave up after {limits}; is {endpoint} reachable?"
    elif "resolve" in text or "Name or service" in text or "getaddrinfo" in text:
        found, then = (
            "a name that does not resolve",
            f"check oci.region, oci.endpoint and the DNS for {endpoint}",
        )
    elif "CERTIFICATE" in text or "SSL" in text:
        found, then = (
            "a certificate that is not trusted",
            "is a proxy between? set REQUESTS_CA_BUNDLE to its CA",
        )
    else:
        found, then = (
            "no connection",
            f"gave up after {session.tries}; is {endpoint} reachable, proxy set?",
        )
    return PlanError(key, found, "an answer", then)


def _profile(access: OciAccess, where: str) -> dict[str, Any]:
    """The profile of the configuration file; its `key_file` exists and is a file."""
    import oci

    named = access.config_file or os.environ.get("OCI_CONFIG_FILE") or oci.config.DEFAULT_LOCATION
    path = Path(named).expanduser()
    key = f"{where} config_file"
    try:
        with path.open(encoding="utf-8") as file:
            parser = configparser.ConfigParser(interpolation=None)
            parser.read_file(file)
        if access.profile not in parser:
            known = ", ".join(name for name in parser if parser[name]) or "none"
            near = suggestion(access.profile, list(parser))
            then = near if near.startswith("did") else f"{path} has: {known}"
            raise PlanError(f"{where} profile", access.profile, f"a profile of {path}", then)
        found: dict[str, Any] = oci.config.from_file(str(path), access.profile)
    except FileNotFoundError:
        then = 'run: oci setup config, or set auth = "instance_principal" on an instance'
        raise PlanError(key, f"no file {path}", "OCI's configuration file", then) from None
    except OSError as error:
        raise PlanError(key, f"{error.strerror}: {path}", "a file that can be read") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        # their messages quote the line, which may hold a passphrase
        line = getattr(error, "lineno", None) or next((n for n, _ in getattr(error, "errors", ())), None)
        at = f", line {line}" if line else ""
        raise PlanError(
            key, f"{type(error).__name__}{at} of {path}", "[PROFILE] and key=value lines"
        ) from None
    except oci.exceptions.InvalidKeyFilePath:
        given = parser[access.profile].get("key_file", "")
        raise PlanError(
            f"{_in_profile(access, where)}.key_file", f"no file {given}", "a private key"
        ) from None
    except ValueError as error:
        if isinstance(error, PlanError):
            raise
        # key_content in the file
        raise PlanError(_in_profile(access, where), "key_content", "key_file: the key in a file") from None
    return found


def _in_profile(access: OciAccess, where: str) -> str:
    return f"{where} profile {access.profile}"


def _check_key_file(given: str, key: str) -> None:
    path = Path(given).expanduser()
    try:
        mode = path.stat().st_mode
        with path.open("rb"):
            pass
    except OSError as error:
        raise PlanError(
            f"{key}.key_file", f"{error.strerror}: {path}", "a private key that can be read"
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        found = f"mode {stat.S_IMODE(mode):04o} of {path}"
        raise PlanError(f"{key}.key_file", found, "a key nobody else can read", f"run: chmod 600 {path}")


@contextmanager
def _readable_key(access: OciAccess, where: str) -> Iterator[None]:
    import oci

    key = f"{_in_profile(access, where)}.key_file"
    try:
        yield
    except oci.exceptions.MissingPrivateKeyPassphrase:
        raise PlanError(key, "an encrypted key", "pass_phrase in the profile, or a key without one") from None
    except oci.exceptions.InvalidPrivateKey as error:
        found = (
            "a public key" if "public key" in str(error) else "no private key, or one with another passphrase"
        )
        raise PlanError(key, found, "an RSA private key in PEM") from None
    except (ValueError, TypeError, AttributeError):
        raise PlanError(key, "a key of another kind", "an RSA private key in PEM") from None


def _check_rsa(key: object) -> None:
    """Checked here because the SDK accepts any key, and fails only when it signs."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not isinstance(key, RSAPrivateKey):
        raise TypeError


def _session_token(config: dict[str, Any], access: OciAccess, where: str) -> Any:
    """Sign with a token of `oci session authenticate`, which lasts an hour."""
    import jwt
    import oci

    key = _in_profile(access, where)
    again = f"run: oci session authenticate --profile-name {access.profile}"
    for name in ("security_token_file", "key_file"):
        if not config.get(name):
            raise PlanError(f"{key}.{name}", "nothing", "the file of a session", again)
    path = Path(config["security_token_file"]).expanduser()
    try:
        token = path.read_text(encoding="utf-8").strip()
        expires = jwt.decode(token, options={"verify_signature": False}).get("exp", 0)
    except OSError as error:
        raise PlanError(f"{key}.security_token_file", f"{error.strerror}: {path}", "a token", again) from None
    except (jwt.PyJWTError, UnicodeDecodeError):
        raise PlanError(f"{key}.security_token_file", "no token (not shown)", "a token", again) from None
    late = round(time.time() - float(expires))
    if late >= 0:
        raise PlanError(
            f"{key}.security_token_file", f"a token that expired {late} s ago", "one that is valid", again
        )
    _check_key_file(config["key_file"], key)
    with _readable_key(access, where):
        private_key = oci.signer.load_private_key_from_file(config["key_file"], config.get("pass_phrase"))
        _check_rsa(private_key)
        return oci.auth.signers.SecurityTokenSigner(token, private_key)


def _instance_principal(access: OciAccess, where: str) -> Any:
    """Sign as the instance this runs on. OCI_METADATA_BASE_URL, which the SDK reads, may name another metadata service."""
    import oci

    key = f'{where} auth = "instance_principal"'
    federation = endpoint_of(access, "auth", access.region or "")
    try:
        return oci.auth.signers.InstancePrincipalsSecurityTokenSigner(
            retry_strategy=oci.retry.RetryStrategyBuilder(
                max_attempts=2, retry_base_sleep_time_seconds=FIRST_WAIT_S
            ).get_retry_strategy(),
            federation_client_retry_strategy=retries(),
            federation_client_circuit_breaker_strategy=oci.circuit_breaker.NoCircuitBreakerStrategy(),
            **({"federation_endpoint": f"{federation}/v1/x509"} if federation else {}),
        )
    except oci.exceptions.ServiceError as error:
        then = _clock(error.headers) or "is the instance in a dynamic group that a policy names?"
        raise PlanError(key, f"HTTP {error.status} {error.code or ''}".strip(), "a token", then) from None
    except (oci.exceptions.RequestException, oci.exceptions.ConnectTimeout, OSError):
        # requests' own errors are OSErrors
        then = 'elsewhere set auth = "config_file" or "session_token"'
        raise PlanError(key, "no metadata service", "to run on an OCI instance", then) from None
    except (RuntimeError, ValueError, TypeError) as error:
        raise PlanError(
            key, f"an answer that cannot be read ({type(error).__name__})", "a certificate and a token"
        ) from None
