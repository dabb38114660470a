"""Small security bulletins as CSAF 2.0: in the form in which NVIDIA writes its own, and in the one that the standard shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# platform, product, affected, fixed; either may be empty
Row = tuple[str, str, str, str]
TRITON = "Triton Inference Server"


def document(
    number: str,
    day: str,
    vulnerabilities: Mapping[str, tuple[object, Sequence[Row]]],
    publisher: str = "NVIDIA Product Security",
) -> dict[str, Any]:
    """
    NVIDIA's form: a leaf is named after the product, and its product is named after the versions.

    + vulnerabilities: CVE -> its CVSS base score, or None, and the products that have it
    """
    rows = list(dict.fromkeys(row for _, found in vulnerabilities.values() for row in found))
    platforms: dict[str, list[dict[str, Any]]] = {}
    for platform, product, *texts in rows:
        for text in filter(None, texts):
            leaf = {"name": text, "product_id": product_id(platform, product, text)}
            entry = {"category": "product_version", "name": product, "product": leaf}
            leaves = platforms.setdefault(platform, [])
            if entry not in leaves:
                leaves.append(entry)
    branches = [
        {"category": "architecture", "name": platform, "branches": leaves}
        for platform, leaves in platforms.items()
    ]
    return {
        "document": {
            "category": "csaf_security_advisory",
            "csaf_version": "2.0",
            "publisher": {"category": "vendor", "name": publisher, "namespace": "https://vendor.invalid"},
            "title": f"Security Bulletin {number}",
            "tracking": {"id": number, "current_release_date": f"{day}T00:00:00Z", "status": "final"},
        },
        "product_tree": {"branches": [{"category": "vendor", "name": "NVIDIA", "branches": branches}]},
        "vulnerabilities": [
            _vulnerability(cve, score, found) for cve, (score, found) in vulnerabilities.items()
        ],
    }


def product_id(platform: str, product: str, text: str) -> str:
    """As NVIDIA makes them of their three parts."""
    return "_".join(
        "".join(c if c.isalnum() else "_" for c in part.lower()) for part in (platform, product, text)
    )


def _vulnerability(cve: str, score: object, rows: Sequence[Row]) -> dict[str, Any]:
    affected = [product_id(platform, product, text) for platform, product, text, _ in rows if text]
    fixed = [product_id(platform, product, text) for platform, product, _, text in rows if text]
    made: dict[str, Any] = {"cve": cve, "product_status": {"known_affected": affected, "fixed": fixed}}
    if score is not None:
        made["scores"] = [{"products": affected, "cvss_v3": {"version": "3.1", "baseScore": score}}]
    return made


def standard(affected: str, fixed: str = "", **more: Any) -> dict[str, Any]:
    """
    The standard's form: the product above, the version below it.

    + more: further keys of the one vulnerability
    """
    leaves = [
        {"category": "product_version_range", "name": affected, "product": {"name": "a", "product_id": "A"}}
    ]
    if fixed:
        leaves.append(
            {"category": "product_version", "name": fixed, "product": {"name": "b", "product_id": "B"}}
        )
    made = document("7000", "2026-10-01", {})
    made["product_tree"]["branches"][0]["branches"] = [
        {"category": "product_name", "name": TRITON, "branches": leaves}
    ]
    status: dict[str, Any] = {"known_affected": ["A"]}
    if fixed:
        status["fixed"] = ["B"]
    made["vulnerabilities"] = [{"cve": "CVE-2026-7000", "product_status": status, **more}]
    return made


def triton(number: str, day: str, affected: str, fixed: str, score: object = 7.5) -> dict[str, Any]:
    """A bulletin about Triton alone."""
    return document(number, day, {f"CVE-2026-{number}": (score, [("Linux", TRITON, affected, fixed)])})


def driver(number: str, day: str, fixed: Sequence[str], score: object = 7.8) -> dict[str, Any]:
    """A bulletin about the driver; a fixed version of each branch."""
    rows = [
        (f"Linux(R{version.split('.')[0]})", "Tesla", f"All driver versions prior to {version}", version)
        for version in fixed
    ]
    return document(number, day, {f"CVE-2026-{number}": (score, rows)})


def written(directory: Path, *documents: Mapping[str, Any]) -> Path:
    """As the folder of a year holds them: one for each, with the records of its CVEs beside it."""
    for made in documents:
        number = made["document"]["tracking"]["id"]
        folder = directory / number
        folder.mkdir(parents=True)
        (folder / f"{number}.json").write_text(json.dumps(made), encoding="utf-8")
        (folder / f"CVE-2026-{number}.json").write_text('{"dataType": "CVE_RECORD"}', encoding="utf-8")
    return directory
