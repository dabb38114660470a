"""One signing key per vendor, made once and kept in the cache."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.lab.shell import LabError, attempt, run


class SigningKey:
    """The key of one vendor (docker-ce, nvidia-container-toolkit, oracle): its own GnuPG home, no passphrase."""

    def __init__(self, cache: Path, vendor: str) -> None:
        self.home = cache / "gpg" / vendor
        self.owner = f"lab stand-in for {vendor} <{vendor}@lab.invalid>"
        self._environment = {"GNUPGHOME": str(self.home)}

    def create(self) -> None:
        """Make the key. A home without a usable key is from an interrupted run, and made again."""
        if self.home.is_dir() and self._listed():
            return
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True, mode=0o700)
        run(
            "gpg",
            "--batch",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            "--quick-generate-key",
            self.owner,
            "rsa3072",
            "sign",
            "never",
            env=self._environment,
        )

    def _listed(self) -> str:
        listed = attempt(
            "gpg", "--batch", "--with-colons", "--list-secret-keys", env=self._environment
        ).stdout
        return next((line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")), "")

    def fingerprint(self) -> str:
        """40 upper-case hexadecimal digits."""
        found = self._listed()
        if not found:
            raise LabError(f"{self.home} holds no key; remove it and run `up` again")
        return found

    def public(self) -> str:
        return run("gpg", "--batch", "--armor", "--export", self.fingerprint(), env=self._environment)

    def sign_packages(self, packages: Sequence[Path]) -> None:
        run(
            "rpmsign",
            "--define",
            f"_gpg_name {self.fingerprint()}",
            "--define",
            f"_gpg_path {self.home}",
            "--define",
            "__gpg /usr/bin/gpg",
            "--addsign",
            *packages,
            env=self._environment,
        )

    def sign_file(self, file: Path) -> None:
        """Write its detached signature to `file`.asc."""
        run("gpg", "--batch", "--yes", "--armor", "--detach-sign", file, env=self._environment)

    def release_agent(self) -> None:
        """End the gpg-agent of this key."""
        attempt("gpgconf", "--kill", "all", env=self._environment)
