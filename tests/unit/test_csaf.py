"""The CSAF reader: what a bulletin says of our components, in both forms, and what it makes of odd ones."""

from __future__ import annotations

from typing import Any

import pytest
from packaging.version import Version

from operations.plan.audit.csaf import CsafError, Range, Statement, affected_range, read
from tests.unit.csaf_documents import TRITON, document, driver, product_id, standard, triton


def one(made: dict[str, Any]) -> Statement:
    """The one statement of a document that is understood completely."""
    bulletin = read(made)
    assert bulletin.unread == ()
    [statement] = bulletin.statements
    return statement


# --- ranges


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # as NVIDIA's bulletins of 2022 to 2026 have them
        ("All versions prior to 26.01", Range(below="26.01")),
        ("All versions prior to r26.03", Range(below="26.03")),
        ("All driver versions prior to 580.159.03", Range(below="580.159.03")),
        ("All drivers versions prior to 510.47.03", Range(below="510.47.03")),
        ("All driver version prior to 570.172.08", Range(below="570.172.08")),
        (
            "All driver versions prior to 582.78 Only GPUs based on Maxwell are affected.",
            Range(below="582.78"),
        ),
        ("All versions up to and including v1.16.1", Range(through="1.16.1")),
        (
            "All versions up to and including 1.17.7 (CDI mode only for versions prior to 1.17.5)",
            Range(through="1.17.7"),
        ),
        ("0.0 - 26.03", Range("0.0", through="26.03")),
        ("0.0-26.05", Range("0.0", through="26.05")),
        ("v0 - v10.16.1", Range("0", through="10.16.1")),
        ("0.0  to v1.3.0 rc11", Range("0.0", through="1.3.0rc11")),
        ("v19.11 through v24.08", Range("19.11", through="24.08")),
        ("24.11", Range("24.11", through="24.11")),
        ("1.3.0rc24", Range("1.3.0rc24", through="1.3.0rc24")),
        # as others write them
        ("1.2 and earlier", Range(through="1.2")),
        ("before 1.2", Range(below="1.2")),
        ("all versions", Range()),
        ("<26.06", Range(below="26.06")),
        (">=1.0|<1.2", Range("1.0", "1.2")),
        ("vers:generic/>=1.0,<=1.2", Range("1.0", through="1.2")),
    ],
)
def test_sentence_is_a_range_of_versions(text: str, expected: Range) -> None:
    assert affected_range(text) == expected


@pytest.mark.parametrize(
    "text",
    ["the latest", "see the notes", ">1.0", "1.2.3.4a", "All versions prior to", "<1.0|x", "580.1(vGPU"],
)
def test_sentence_that_is_no_range_is_none(text: str) -> None:
    assert affected_range(text) is None


@pytest.mark.parametrize(
    ("affected", "inside", "outside"),
    [
        (Range(below="26.06"), ("26.05", "0.1"), ("26.06", "26.07")),
        (Range("22.09", "24.04"), ("22.09", "24.03"), ("22.08", "24.04")),
        (Range(through="10.16.1"), ("10.16.1", "10.16.1.11", "10.16"), ("10.16.2", "11.0")),
        (
            Range("1.3.0rc24", through="1.3.0rc24"),
            ("1.3.0rc24",),
            ("1.3.0rc23", "1.3.0rc25", "1.3.0", "1.2.1"),
        ),
        (Range(below="1.3.0rc15"), ("1.2.1", "1.3.0rc14"), ("1.3.0rc15", "1.3.0")),
        (Range(), ("0.1", "99"), ()),
    ],
)
def test_range_holds_what_is_affected(
    affected: Range, inside: tuple[str, ...], outside: tuple[str, ...]
) -> None:
    assert all(affected.holds(Version(version)) for version in inside)
    assert not any(affected.holds(Version(version)) for version in outside)


# --- a document


def test_bulletin_is_named_dated_and_scored() -> None:
    made = triton("5865", "2026-08-18", "0.0-26.05", "26.06", 9.8)
    bulletin = read(made)
    assert (bulletin.name, bulletin.published) == ("NVIDIA 5865", "2026-08-18")
    assert bulletin.statements == (
        Statement("triton", "", Range("0.0", "26.06"), "26.06", "CVE-2026-5865", 9.8),
    )


@pytest.mark.parametrize("fixed", ["r26.06", "v26.06", "26.06", ">=26.06"])
def test_fix_is_read_as_the_bulletins_write_it(fixed: str) -> None:
    assert one(triton("1", "2026-08-18", "All versions prior to r26.06", fixed)).fixed == "26.06"


def test_versions_between_last_named_and_fix_are_affected() -> None:
    made = document("5855", "2026-07-14", {"CVE-1": (7.8, [("All", "TensorRT", "v0 - v10.16.1", "v11.0")])})
    affected = one(made).affected
    assert affected.holds(Version("10.16.1.11"))
    assert affected.holds(Version("10.20"))
    assert not affected.holds(Version("11.0"))


def test_each_vulnerability_ends_at_its_own_fix() -> None:
    rows = {
        "CVE-1": (8.4, [("All", "TensorRT-LLM", "0.0 to v1.3.0 rc14", "v1.3.0 rc15")]),
        "CVE-2": (7.8, [("All", "TensorRT-LLM", "0.0 to v1.3.0 rc16", "v1.3.0 rc17")]),
    }
    found = {
        statement.cve: statement.fixed for statement in read(document("5840", "2026-07-14", rows)).statements
    }
    assert found == {"CVE-1": "1.3.0rc15", "CVE-2": "1.3.0rc17"}


def test_fix_is_that_of_the_same_product_and_platform() -> None:
    rows = [
        ("Linux", "NVIDIA Container Toolkit", "All versions up to and including 1.17.3", "1.17.4"),
        ("Linux", "NVIDIA GPU Operator", "All versions up to and including 24.9.1", "24.9.2"),
    ]
    statement = one(document("5616", "2025-02-11", {"CVE-2025-23359": (8.3, rows)}))
    assert (statement.component, statement.fixed) == ("nvidia-container-toolkit", "1.17.4")


def test_driver_is_read_for_each_branch_of_linux() -> None:
    made = driver("5821", "2026-05-21", ["535.309.01", "580.159.03"])
    rows = made["product_tree"]["branches"][0]["branches"]
    assert [row["name"] for row in rows] == ["Linux(R535)", "Linux(R580)"]
    assert {(s.branch, s.fixed) for s in read(made).statements} == {
        ("535", "535.309.01"),
        ("580", "580.159.03"),
    }


@pytest.mark.parametrize(
    ("platform", "product"),
    [
        ("Windows(R580)", "Tesla"),
        ("Linux(R580 vGPU 19)", "Guest driver"),
        ("Linux(Gaming)", "Tesla"),
        ("Windows", TRITON),
        ("Windows, macOS", "NVIDIA TensorRT-LLM"),
        ("Linux", "NVIDIA DALI"),
    ],
)
def test_other_platform_or_product_is_not_ours(platform: str, product: str) -> None:
    made = document(
        "1", "2026-01-01", {"CVE-1": (7.0, [(platform, product, "All versions prior to 2", "2")])}
    )
    assert read(made).statements == ()
    assert read(made).unread == ()


@pytest.mark.parametrize("platform", ["Linux", "All", "Windows, Linux", "Linux(v22)", "DALI Backend"])
def test_platform_of_triton_on_linux_is_ours(platform: str) -> None:
    made = document(
        "1", "2026-01-01", {"CVE-1": (7.0, [(platform, f"NVIDIA {TRITON}", "22.09 to 24.03", "24.04")])}
    )
    assert one(made).affected == Range("22.09", "24.04")


def test_tesla_speaks_for_a_branch_before_geforce_does() -> None:
    rows = [
        ("Linux(R570)", "GeForce", "All driver versions prior to 570.86.16", "570.86.16"),
        ("Linux(R570)", "Tesla", "All driver versions prior to 570.86.15", "570.86.15"),
        ("Linux(R565)", "GeForce", "All driver versions prior to 565.57.01", "565.57.01"),
    ]
    found = read(document("5614", "2025-01-30", {"CVE-1": (7.1, rows)})).statements
    assert {(statement.branch, statement.fixed) for statement in found} == {
        ("570", "570.86.15"),
        ("565", "565.57.01"),
    }


def test_standard_form_is_read_too() -> None:
    score = {"products": ["A"], "cvss_v3": {"baseScore": 5.3}}
    statement = one(standard("<26.06", "26.06", scores=[score]))
    assert (statement.component, statement.affected, statement.fixed) == (
        "triton",
        Range(below="26.06"),
        "26.06",
    )
    assert statement.cvss == 5.3


def test_remedy_stands_in_where_no_fix_is_named() -> None:
    remedies = [
        {"category": "workaround", "details": "turn it off", "product_ids": ["A"]},
        {"category": "vendor_fix", "details": "Update to\nthe next release", "product_ids": ["A"]},
        {"category": "vendor_fix", "details": "another product's", "product_ids": ["Z"]},
    ]
    assert one(standard("<26.06", remediations=remedies)).remedy == "Update to the next release"
    assert one(standard("<26.06", "26.06", remediations=remedies)).remedy == ""
    assert one(standard("<26.06", remediations=remedies[:1])).remedy == "turn it off"


# --- odd documents


def test_missing_score_is_none_and_not_zero() -> None:
    assert one(triton("1", "2026-08-18", "All versions prior to 26.06", "26.06", None)).cvss is None
    assert one(standard("<26.06", scores=[{"products": ["A"], "cvss_v2": {"baseScore": 9.0}}])).cvss is None
    assert one(standard("<26.06", scores=[{"products": ["B"], "cvss_v3": {"baseScore": 9.0}}])).cvss is None


def test_highest_score_of_a_product_counts() -> None:
    scores = [{"products": ["A"], "cvss_v3": {"baseScore": value}} for value in (5.0, 9.1, 7.0)]
    assert one(standard("<26.06", scores=scores)).cvss == 9.1


def test_sentence_not_understood_means_all_below_the_fix() -> None:
    statement = one(triton("1", "2026-08-18", "see the release notes", "26.06"))
    assert statement.affected == Range(below="26.06")


def test_sentence_not_understood_without_a_fix_is_kept() -> None:
    bulletin = read(triton("1", "2026-08-18", "see the release notes", ""))
    assert bulletin.statements == ()
    assert bulletin.unread == ('CVE-2026-1: Triton Inference Server: affected "see the release notes"',)


def test_server_version_of_triton_is_kept_as_unread() -> None:
    bulletin = read(triton("5509", "2023-12-19", "All versions prior to 2.40", "2.40"))
    assert bulletin.statements == ()
    assert len(bulletin.unread) == 2


def test_product_that_the_tree_lacks_is_kept_as_unread() -> None:
    made = triton("1", "2026-08-18", "All versions prior to 26.06", "26.06")
    made["vulnerabilities"][0]["product_status"]["known_affected"].append("gone")
    bulletin = read(made)
    assert len(bulletin.statements) == 1
    assert bulletin.unread == ('CVE-2026-1: product "gone", which the product tree lacks',)


def test_no_fix_and_a_single_version_is_that_version() -> None:
    made = document("5883", "2026-10-27", {"CVE-1": (8.4, [("All", "TensorRT-LLM", "1.3.0rc24", "")])})
    statement = one(made)
    assert (statement.affected, statement.fixed) == (Range("1.3.0rc24", through="1.3.0rc24"), "")


def test_only_products_without_versions_are_all_versions() -> None:
    made = standard("<26.06")
    product = made["product_tree"]["branches"][0]["branches"][0]
    product["product"] = {"name": TRITON, "product_id": "WHOLE"}
    made["vulnerabilities"][0]["product_status"] = {"known_affected": ["WHOLE"]}
    assert one(made).affected == Range()


def test_bulletin_of_another_publisher_has_its_name() -> None:
    made = document("A-1", "2026-01-01", {}, publisher="Somewhere CERT")
    assert read(made).name == "Somewhere CERT A-1"


def broken(**changed: Any) -> dict[str, Any]:
    return {**triton("1", "2026-08-18", "All versions prior to 26.06", "26.06"), **changed}


def of_score(value: object) -> dict[str, Any]:
    return triton("1", "2026-08-18", "All versions prior to 26.06", "26.06", value)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "found list, expected a table"),
        ({}, "found no table document"),
        ({"document": {"csaf_version": "1.2"}}, 'found csaf_version "1.2", expected 2.0'),
        (broken(product_tree=[]), "found no table product_tree"),
        (broken(product_tree={"branches": {}}), "found branches of type dict, expected a list"),
        (broken(product_tree={"branches": ["x"]}), "found str, expected a table"),
        (broken(vulnerabilities={}), "found vulnerabilities of type dict, expected a list"),
        (broken(vulnerabilities=["x"]), "found str, expected a table"),
        (broken(vulnerabilities=[{"cve": "C", "product_status": []}]), "found list, expected a table"),
        (of_score("7.5"), 'found the CVSS score "7.5", expected a number from 0 to 10'),
        (of_score(11), 'found the CVSS score "11"'),
        (of_score(True), 'found the CVSS score "True"'),
    ],
)
def test_malformed_document_is_an_error_of_one_line(made: Any, said: str) -> None:
    with pytest.raises(CsafError, match=r"^found ") as error:
        read(made)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("day", ["soon", "2026-13-01"])
def test_date_that_is_none_is_an_error(day: str) -> None:
    made = triton("1", day, "All versions prior to 26.06", "26.06")
    with pytest.raises(CsafError, match=f'found the date "{day}'):
        read(made)


def test_name_of_a_bulletin_is_bounded() -> None:
    made = triton("9" * 500, "2026-08-18", "All versions prior to 26.06", "26.06")
    assert read(made).name == f"NVIDIA {'9' * 32}"


def test_tree_without_an_end_is_an_error() -> None:
    made = triton("1", "2026-08-18", "All versions prior to 26.06", "26.06")
    deep: dict[str, Any] = {"category": "x", "name": "x"}
    for _ in range(40):
        deep = {"category": "x", "name": "x", "branches": [deep]}
    made["product_tree"]["branches"] = [deep]
    with pytest.raises(CsafError, match="more than 32 branches"):
        read(made)


def test_identifiers_are_those_of_the_documents() -> None:
    assert product_id("Linux", TRITON, "26.06") == "linux_triton_inference_server_26_06"
