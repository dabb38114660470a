"""What an inventory says of the messages about a run: where they go, and no secret."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from operations.plan.catalog.values import Switch
from operations.plan.errors import PlanError
from operations.plan.wording import Form, complaint

_URL = "a URL with https://, or with http:// to this machine, and without user, password, ? and #"
# what a person chose as a name in a path has words; what a service made up as a secret has not
_SECRET_PART = re.compile(
    r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}"  # a UUID
    r"|(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}"
    r"|[A-Za-z0-9]{24,}"
    r"|(?=[A-Za-z0-9_-]*[0-9])(?=[A-Za-z0-9_-]*[A-Z])(?=[A-Za-z0-9_-]*[a-z])[A-Za-z0-9_-]{24,}",
)

WebhookUrl = Annotated[str, Field(min_length=9, max_length=500), Form(_URL)]
VariableName = Annotated[
    str,
    Field(pattern=r"^[A-Z_][A-Z0-9_]{0,99}$"),
    Form("the name of an environment variable: capitals, digits and _, such as NOTIFY_TOKEN"),
]
# https://docs.oracle.com/en-us/iaas/Content/General/Concepts/identifiers.htm
TopicOcid = Annotated[
    str,
    Field(pattern=r"^ocid1\.onstopic\.[a-z0-9-]+\.[a-z0-9-]+\.[a-z0-9]+$"),
    Form("the OCID of a topic of OCI Notifications, such as ocid1.onstopic.oc1.iad.aaaa"),
]


class NotificationSettings(BaseModel):
    """
    Where the messages about a run go.

    + webhook: one URL or several
    + webhook_variable: the environment variable with a URL that is a secret itself
    + token_variable: the environment variable with the token that is sent to them
    + oci_topic: a topic of OCI Notifications
    + notify_converged: a message too where nothing differed
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    webhook: WebhookUrl | Annotated[list[WebhookUrl], Field(min_length=1, max_length=20)] | None = None
    webhook_variable: VariableName | None = None
    token_variable: VariableName | None = None
    oci_topic: TopicOcid | None = None
    notify_converged: Switch = False

    @property
    def webhooks(self) -> tuple[str, ...]:
        """The URLs that the inventory names."""
        return (self.webhook,) if isinstance(self.webhook, str) else tuple(self.webhook or ())

    @model_validator(mode="after")
    def _to_somewhere(self) -> NotificationSettings:
        if not (self.webhooks or self.webhook_variable or self.oci_topic):
            raise complaint("webhook", None, "webhook, webhook_variable or oci_topic")
        if self.token_variable and not (self.webhooks or self.webhook_variable):
            raise complaint("token_variable", self.token_variable, "a webhook that it is for")
        return self


def check_webhooks(value: object, where: str) -> None:
    """
    Refuse a table with a URL that may hold a secret, or that would carry one in plain text, without showing it.

    + value: what the inventory says of notifications, of whatever type
    + where: the key, for the error
    """
    table: Mapping[Any, Any] = value if isinstance(value, Mapping) else {}
    given = table.get("webhook")
    for url in given if isinstance(given, list | tuple) else [given]:
        if isinstance(url, str) and (problem := problem_of(url)):
            found, expected, then, reference = problem
            raise PlanError(f"{where}.webhook", found, expected, then, reference=reference)


def problem_of(url: str) -> tuple[str, str, str, str] | None:
    """What is wrong with a webhook's URL in an inventory: found, expected, what to do, and the reference of the error."""
    parts = split(url)
    if parts is None:
        return "another text (not shown)", _URL, "such as https://hooks.example/deploys", "wrong-value"
    secret = "user" if "@" in parts.netloc else "?" if parts.query else "#" if parts.fragment else ""
    # a wide check: a name that is taken for a secret can be written in words, a secret in a repository is out
    pieces = [piece for segment in parts.path.split("/") for piece in re.split(r"[.@:,;=~%]", segment)]
    if secret or any(_SECRET_PART.fullmatch(piece) for piece in pieces):
        then = (
            "export a token and name its variable in token_variable, or export the whole URL and name its variable in "
            "webhook_variable"
        )
        found = "what looks like a secret in the URL (not shown)"
        return found, "no secret in an inventory", then, "secret-in-inventory"
    return None


def split(url: str) -> SplitResult | None:
    """The parts of a URL that a message may be sent to; None: it may not."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if not plain or not parts.hostname or port == 0:
        return None
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)):
        return parts
    return None


def is_loopback(name: str) -> bool:
    """Whether a host name or an address is this machine's own, without asking a name server."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
