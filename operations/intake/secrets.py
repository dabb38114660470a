"""Secrets come from where the operator keeps them when they are needed, and are never kept."""

from __future__ import annotations

import base64
import binascii
import os
import re

from operations.plan.errors import PlanError
from operations.plan.inventory.hosts import tables_from_toml
from operations.plan.inventory.oci import OciAccess, access_of, from_table
from operations.plan.paths import PROJECT

# How OCI's vault is asked is what the inventory says about OCI, and nothing else.
INVENTORY = PROJECT / "inventories" / "oci.toml"
SOURCES = ("HF_TOKEN", "HF_TOKEN_PATH", "HF_TOKEN_SECRET_OCID")
READ_SECRET = (
    "Allow group GROUP to read secret-bundles in compartment COMPARTMENT where target.secret.id = '<OCID>'"
)
_LARGEST = 4096  # bytes; a token has forty
# the region's short name or its whole one: ocid1.vaultsecret.oc1.iad.…
_SECRET_OCID = re.compile(r"ocid1\.vaultsecret\.[a-z0-9-]+\.([a-z0-9-]+)\.[a-z0-9]+")


class SecretMissing(ValueError):
    """A secret that is needed and not there, or not usable; its text is never in the message."""


def hub_token() -> str:
    """
    The Hugging Face token: of HF_TOKEN, of the file HF_TOKEN_PATH names, or of the secret in OCI's vault whose OCID
    HF_TOKEN_SECRET_OCID is.

    Raises SecretMissing where there is none or it cannot be one, and where two of them are set: which of two
    identities downloads a model is not left to chance.
    """
    present = {name: value for name in SOURCES if (value := os.environ.get(name)) is not None}
    # An empty value counts as unset unless it is the only one given: that is how a shell takes a variable back.
    given = {name: value for name, value in present.items() if value} or dict(list(present.items())[:1])
    if not given:
        raise SecretMissing(
            "HF_TOKEN: not set, expected a Hugging Face token because the model is gated; export HF_TOKEN, or "
            "HF_TOKEN_PATH=FILE, or HF_TOKEN_SECRET_OCID=OCID of a secret in OCI's vault"
        )
    if len(given) > 1:
        raise SecretMissing(f"{' and '.join(given)}: all set, expected one of them; unset the others")
    [(source, value)] = given.items()
    if value and source == "HF_TOKEN_PATH":
        value = _of_file(value)
    if value and source == "HF_TOKEN_SECRET_OCID":
        value = _of_vault(value)
    return checked(value.removesuffix("\n"), source)


def checked(token: str, source: str) -> str:
    """
    The token as it is.

    + source: where it comes from, for the error

    Raises SecretMissing for what cannot be one, and says what is wrong with it without its text: the hub's own answer
    would be that it does not know the token.
    """
    problem = ""
    if not token.strip():
        problem = "found nothing, expected a Hugging Face token because the model is gated"
    elif "\r" in token:
        problem = "found a Windows line end behind it; write the file with Unix line ends"
    elif token.startswith("\ufeff"):
        problem = "found a byte order mark before it; write the file without one"
    elif token[0] in "\"'" or token[-1] in "\"'":
        problem = "found quotation marks around it; leave them out"
    elif re.search(r"hf_\S+\s+hf_", token):
        problem = "found several tokens (not shown), expected one"
    elif token != token.strip():
        problem = "found spaces or empty lines around it; leave them out"
    elif not re.fullmatch(r"[A-Za-z0-9_.-]{8,}", token):
        problem = "found characters no token has (not shown); expected hf_ and letters and digits"
    if problem:
        raise SecretMissing(f"{source}: {problem}")
    return token


def _of_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise SecretMissing(f"HF_TOKEN_PATH: found more than {_LARGEST} bytes, expected a token alone")
        return content.decode("utf-8")
    except OSError as error:
        raise SecretMissing(
            f"HF_TOKEN_PATH: {error.strerror}; expected a readable file with the token"
        ) from None
    except UnicodeDecodeError:
        raise SecretMissing("HF_TOKEN_PATH: found no text in UTF-8, expected the token") from None


def _of_vault(ocid: str) -> str:
    """The current version of a secret, asked for as the inventory asks for instances."""
    found = _SECRET_OCID.fullmatch(ocid)
    if not found:
        # not shown: it may be the token itself
        raise SecretMissing(
            "HF_TOKEN_SECRET_OCID: found another text (not shown), expected ocid1.vaultsecret.…"
        )
    try:
        access, where = oci_access()
        return _content(access, where, ocid, found[1])
    except PlanError as error:
        raise SecretMissing(f"HF_TOKEN_SECRET_OCID: {error}") from None


def oci_access() -> tuple[OciAccess, str]:
    """How the inventory asks OCI, and where it says so. Raises PlanError."""
    where = f"{INVENTORY.parent.name}/{INVENTORY.name}"
    tables = tables_from_toml(INVENTORY) if INVENTORY.exists() else {}
    if "oci" not in tables:
        return OciAccess(), "~/.oci/config"
    return access_of(from_table(tables["oci"], where)), f"{where} [oci]"


def _content(access: OciAccess, where: str, ocid: str, region: str) -> str:
    # imported here: the oci package takes a third of a second
    import oci

    from operations.intake.oci_session import answered, open_session

    # A secret is read in its own region, wherever the instances are.
    own = oci.regions.REGIONS_SHORT_NAMES.get(region, region)
    session = open_session(access.model_copy(update={"region": own}), where)
    client = session.client(oci.secrets.SecretsClient, "secrets.vaults")
    with answered(session, f"read secret {ocid}", READ_SECRET):
        bundle = client.get_secret_bundle(ocid).data
        encoded = getattr(bundle.secret_bundle_content, "content", None)
    if encoded is None:
        raise SecretMissing(f"HF_TOKEN_SECRET_OCID: found an answer without content for {ocid}")
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise SecretMissing(
            f"HF_TOKEN_SECRET_OCID: found no text in secret {ocid} (not shown), expected the token in UTF-8"
        ) from None
