"""Messages of dnf, git, docker and the hub when they fail: whether another run may succeed, and what to do.

The first row that matches counts: a message that names a cause comes before one that only shows its effect. Sources: dnf
4 (dnf/base.py, dnf/cli/cli.py, libdnf/repo/Repo.cpp, librepo/handle.c), git's remote-curl.c and http.c, docker's
distribution/registry, and Go's packages x509 and net.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """
    Why a tool failed.

    + says: a pattern for a line of its output, in upper or lower case
    + then: what to do
    + passes: whether it may pass without a change
    """

    name: str
    says: str
    then: str
    passes: bool = False

    def said_by(self, line: str) -> bool:
        """Whether this line shows it."""
        return re.search(self.says, line, re.IGNORECASE) is not None


# RHEL 8 and 9 have it in AppStream, and so should Oracle Linux; a site's mirror may lack it.
_GIT_LFS = (
    "git-lfs is in ol8_appstream and ol9_appstream, and in EPEL: enable one of them with "
    "dnf config-manager --enable ol9_appstream, or dnf install oracle-epel-release-el9"
)

CAUSES = (
    Cause(
        "no space",
        r"no space left on device|disk quota exceeded|(more space|[KMGT]B) needed on the \S+ filesystem",
        "a file system is full: make room on it (df -h), then run again",
    ),
    # https://github.com/oracle/container-images/issues/27, https://github.com/oamg/convert2rhel/pull/356
    Cause(
        "unexpanded variable",
        r"(\$|%24)\{?oci(region|domain)|yum/vars/ociregion",
        "the repository's address holds a variable that this host does not set: write /etc/dnf/vars/ociregion and "
        "/etc/dnf/vars/ocidomain (outside OCI an empty line, and oracle.com), or name system_repositories",
    ),
    Cause(
        "certificate",
        r"certificate verif(y|ication) failed|x509:|ssl certificate problem|peer certificate|ssl peer certificate|"
        r"failed to verify certificate|certificate has expired",
        "the host does not trust that server's certificate: put the site's authority into /etc/pki/ca-trust/source/"
        "anchors and run update-ca-trust, or correct the address; check the clock, too",
    ),
    Cause(
        "not HTTPS",
        r"server gave http response to https client",
        "the registry speaks plain HTTP: give it a certificate, or name it under insecure-registries",
    ),
    Cause(
        "signature",
        r"gpg check failed|gpg signature (is not available|verification error)|bad gpg signature|"
        r"gpg verification is enabled|public key for \S+ is not installed|is not signed|"
        r"not correct for this package|digests? (signatures )?not ok",
        "dnf does not trust the signature: see which repository it names, and whether its gpgkey is its publisher's; a "
        "mirror may have signed it again. Do not switch gpgcheck off",
    ),
    Cause(
        "modular filtering",
        r"filtered out by modular filtering|is filtered out by modular",
        "a module hides the package: dnf module list --enabled; dnf module reset or disable that one, or "
        "module_hotfixes=1 in the repository that has it",
    ),
    Cause(
        "excludes",
        r"filtered out by exclude filtering",
        "an exclude hides the package: check excludepkgs and exclude in /etc/dnf/dnf.conf and "
        "/etc/yum.repos.d, and dnf versionlock list",
    ),
    Cause("git-lfs", r"(no match for argument|unable to find a match):.*\bgit-lfs\b", _GIT_LFS),
    Cause(
        "no such package",
        r"no match for argument|unable to find a match|no package \S+ available|"
        r"no matching distribution found|could not find a version that satisfies",
        "no enabled repository holds that package at that version: correct the pin, or enable or mirror the repository "
        "that has it (dnf --showduplicates list NAME)",
    ),
    # from repositories that do not belong together, or from an incomplete mirror
    Cause(
        "conflict",
        r"conflicts with .* (provided by|from)|cannot install (both|the best)|nothing provides|"
        r"file .* conflicts (between|with)|transaction (test|check) (error|failed)",
        "the packages contradict one another: see which ones the lines above name, and remove or pin those yourself",
    ),
    Cause(
        "locked",
        r"failed to obtain the transaction lock|can't create transaction lock|waiting for process with pid",
        "another package manager is at work: wait for it or end it, then run again",
        passes=True,
    ),
    Cause(
        "digest",
        r"do not match the hashes|filesystem layer verification failed|failed precondition.*digest|"
        r"unexpected (commit )?digest|manifest verification failed",
        "the source holds something else than is pinned: compare the mirror with the publisher before you change a pin",
    ),
    Cause(
        "no image",
        r"manifest unknown|manifest for \S+ not found|no matching manifest|name unknown|repository name not known",
        "the registry has no such image: correct image_digests or the registry, or mirror the image",
    ),
    Cause(
        "not a registry",
        r"invalid character '<' looking for beginning of value|error parsing http \d+ response body|"
        r"unsupported (manifest )?media ?type|unexpected media type|missing signature key",
        "the server is not an image registry (a login page, or a proxy): correct image_registry",
    ),
    Cause(
        "not a git repository",
        r"is this a git repository\?|does not appear to be a git repository|repository '\S+' not found|"
        r"remote: (not found|repository not found)",
        "the server has no git repository of that name: correct git_mirrors",
    ),
    Cause(
        "no such revision",
        r"couldn't find remote ref|remote branch \S+ not found|not our ref|reference is not a tree",
        "the repository lacks that tag or commit: complete the mirror, or correct the release or backend_commits",
    ),
    Cause(
        "no large file",
        r"object does not exist on the server|repository or object not found|smudge filter lfs failed",
        "the git server lacks the LFS objects: complete the mirror (git lfs fetch --all, git lfs push --all)",
    ),
    # docker's own message has no number
    Cause(
        "too many requests", r"toomanyrequests|too many requests|\b(error|status)\S*:? 429\b", "", passes=True
    ),
    Cause(
        "refused",
        r"unauthorized|access (to the resource is )?denied|no basic auth credentials|authentication failed|"
        r"could not read username|(returned error|status code|http status|http error|\bhttp)\S*:? 40[13]\b",
        "the server refuses this host: log in there, or correct the address or the token",
    ),
    # from a mirror that is being written at this moment
    Cause(
        "stale metadata",
        r"status code: 404 for \S*/repodata/(?!repomd\.xml)|checksum doesn't match|repomd\.xml\S* .*older than",
        "the mirror's list of packages names what the mirror does not hold, as while it is copied: dnf clean metadata, "
        "then run again; if it comes back, copy the mirror again",
        passes=True,
    ),
    Cause(
        "gone",
        r"(returned error|status code|http status|http error|\bhttp)\S*:? (404|410)\b",
        "there is nothing at that address: correct it, or complete the mirror",
    ),
)

# Exit codes of our own scripts and programs for lasting errors (EX_DATAERR, EX_NOINPUT)
PERMANENT_CODES = ("65", "66")
MENDED = "trying again does not help: fix what the lines above name, then run the same command again"
RETRY = "run the same command again to retry"


def cause(lines: Iterable[str]) -> Cause | None:
    """The first cause of the table that any of the lines shows; None if there is none."""
    said = list(lines)
    return next((each for each in CAUSES if any(each.said_by(line) for line in said)), None)


def advice(lines: Iterable[str], code: str = "") -> str:
    """
    What to do about work that failed.

    + lines: the last lines that it wrote
    + code: its exit code
    """
    found = cause(lines)
    if found and found.then:
        return found.then
    return MENDED if found is None and code in PERMANENT_CODES else RETRY
