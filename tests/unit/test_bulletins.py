"""The feed: made of documents, written, read again; and the one that is shipped."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest

from operations.plan.audit.bulletins import DAYS, LARGEST, SHIPPED, Feed, as_text, load, made_of, newest
from operations.plan.catalog.version_floors import FLOORS
from operations.plan.errors import PlanError
from tests.unit.csaf_documents import document, driver, triton

DAY = date(2026, 11, 1)
BULLETINS = [
    ("a", triton("5875", "2026-09-08", "0.0-26.06", "26.07")),
    ("b", driver("5861", "2026-09-30", ["580.178.04", "595.91.07"])),
    ("c", document("5869", "2026-07-21", {"CVE-1": (7.0, [("All", "Transformers4Rec", "1", "2")])})),
    ("d", triton("5509", "2023-12-19", "All versions prior to 2.40", "2.40")),
]


@pytest.fixture
def feed() -> Feed:
    return made_of(BULLETINS, DAY, "a test")


def test_feed_has_our_components_the_newest_bulletin_first(feed: Feed) -> None:
    assert [entry.bulletin for entry in feed.bulletins] == ["NVIDIA 5861", "NVIDIA 5875"]
    assert (feed.collected, feed.source) == (DAY, "a test")
    assert [text.partition(":")[0] for text in feed.unread] == ["NVIDIA 5509"] * 2


def test_vulnerabilities_of_one_range_stand_together() -> None:
    rows = [("Linux", "Triton Inference Server", "0.0 - 26.04", "26.05")]
    made = document("5853", "2026-07-14", {"CVE-2": (7.5, rows), "CVE-1": (6.5, rows), "CVE-3": (None, rows)})
    [entry] = made_of([("a", made)], DAY, "").bulletins
    [affected] = entry.affects
    assert affected.cves == {"CVE-1": 6.5, "CVE-2": 7.5, "CVE-3": None}


def test_later_release_of_a_bulletin_replaces_an_earlier_one() -> None:
    late = triton("1", "2026-03-02", "All versions prior to 26.02", "26.02")
    early = triton("1", "2026-03-01", "All versions prior to 26.01", "26.01")
    for documents in ([("a", early), ("b", late)], [("b", late), ("a", early)]):
        [entry] = made_of(documents, DAY, "").bulletins
        assert entry.affects[0].fixed == "26.02"


def test_feed_is_the_same_after_it_was_written(feed: Feed, tmp_path: Path) -> None:
    path = tmp_path / "feed.json"
    path.write_text(as_text(feed), encoding="utf-8")
    assert load(path) == feed
    assert as_text(load(path)) == as_text(feed)


def test_document_that_is_none_is_named() -> None:
    with pytest.raises(PlanError) as error:
        made_of([("2026/1/1.json", {"document": {}})], DAY, "")
    assert str(error.value).startswith("2026/1/1.json: found csaf_version nothing, expected 2.0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format: found 2"),
        ({"bulletins": [{}]}, "bulletins.0.bulletin: found"),
        ({"more": 1}, "more: found 1"),
        ({"collected": "soon"}, "collected: found soon"),
    ],
)
def test_feed_that_is_none_is_one_line(
    feed: Feed, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    path = tmp_path / "feed.json"
    path.write_text(json.dumps({**json.loads(as_text(feed)), **change}), encoding="utf-8")
    with pytest.raises(PlanError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: {said}"), str(error.value)
    assert "tritonhost exposure --update-feed" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("component", "toaster", "bulletins.0.affects.0.component: found toaster"),
        ("below", "newest", "bulletins.0.affects.0.below: found newest, expected a version in numbers"),
        ("cves", {}, "bulletins.0.affects.0.cves: found"),
        ("cves", {"CVE-1": 11}, "bulletins.0.affects.0.cves.CVE-1: found 11"),
    ],
)
def test_affected_component_is_checked(
    feed: Feed, tmp_path: Path, key: str, value: object, said: str
) -> None:
    table = json.loads(as_text(feed))
    table["bulletins"][0]["affects"][0][key] = value
    path = tmp_path / "feed.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(PlanError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: {said}"), str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "found text that is no JSON"),
        (b"\xff\xfe\x00", "found text that is no JSON"),
        (b"[" * 100_000, "found text that is no JSON (nested too deep)"),
        (b" " * (LARGEST + 1), "found more than 16 MiB"),
    ],
)
def test_file_that_is_no_json_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "feed.json"
    path.write_bytes(content)
    with pytest.raises(PlanError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: {said}"), str(error.value)


def test_newest_feed_is_read_and_a_missing_one_is_not(feed: Feed, tmp_path: Path) -> None:
    paths = [tmp_path / "own.json", tmp_path / "shipped.json"]
    with pytest.raises(PlanError, match="expected the file"):
        newest(paths)
    paths[1].write_text(as_text(feed), encoding="utf-8")
    assert newest(paths)[1] == paths[1]
    later = feed.model_copy(update={"collected": DAY + timedelta(days=1)})
    paths[0].write_text(as_text(later), encoding="utf-8")
    assert newest(paths)[1] == paths[0]
    paths[1].write_text(
        as_text(feed.model_copy(update={"collected": DAY + timedelta(days=2)})), encoding="utf-8"
    )
    assert newest(paths)[1] == paths[1]


def test_feed_is_old_after_its_last_day(feed: Feed) -> None:
    assert not feed.old(DAY + timedelta(days=DAYS))
    assert feed.old(DAY + timedelta(days=DAYS + 1))


# --- the one that is shipped


def test_shipped_feed_says_where_it_is_from() -> None:
    feed = load(SHIPPED)
    assert "NVIDIA/product-security" in feed.source
    assert as_text(feed) == SHIPPED.read_text("utf-8")


def test_shipped_feed_has_the_bulletins_of_nvidia_floors() -> None:
    feed = load(SHIPPED)
    found = {
        (entry.bulletin, one.component, one.branch): one.fixed
        for entry in feed.bulletins
        for one in sorted(entry.affects, key=lambda one: len(one.cves))
    }
    published = {entry.bulletin: entry.published.isoformat() for entry in feed.bulletins}
    floors = [floor for floor in FLOORS if floor.bulletin.startswith("NVIDIA")]
    assert len(floors) > 5
    for floor in floors:
        assert (floor.bulletin, floor.component, floor.branch) in found, floor
        # of 5821 the feed has the second release
        assert published[floor.bulletin] >= floor.published


def test_shipped_feed_has_each_floor_as_a_fixed_version() -> None:
    fixed = {
        (entry.bulletin, one.component, one.fixed)
        for entry in load(SHIPPED).bulletins
        for one in entry.affects
    }
    for floor in FLOORS:
        if floor.bulletin.startswith("NVIDIA"):
            assert (floor.bulletin, floor.component, floor.minimum) in fixed, floor
