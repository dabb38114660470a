"""What is removed of a host, and what never is."""

from operations.facts.releases import StoredReleases, stored
from operations.plan.serving.garbage import Stored, garbage, unread
from tests.unit.builders import verdict as judged

NAMES = [
    *(f"releases/{name}" for name in "abcde"),
    *(f"engines/{name}" for name in "abcde"),
    "weights/w",
    "weights/old",
    "tritonhost/serving:i",
    "tritonhost/serving:old",
]


def made(name: str, age: int, verdict: str = "proven then", image: str = "i") -> Stored:
    artifacts = (("weights", "w"), ("engine", name))
    return Stored(name, -age, judged(verdict), "model", "24.09", artifacts, (f"tritonhost/serving:{image}",))


RELEASES = [made("a", 5), made("b", 4), made("c", 3), made("d", 2), made("e", 1)]
LINKS = {"current": "e", "previous": "d"}


def test_newest_proven_releases_and_their_artifacts_are_kept() -> None:
    assert garbage(RELEASES, LINKS, NAMES, 3) == (
        ["engines/a", "engines/b", "releases/a", "releases/b", "weights/old"],
        ["tritonhost/serving:old"],
    )


def test_current_and_previous_are_kept_at_any_age() -> None:
    directories, _ = garbage(RELEASES, {"current": "a", "previous": "b"}, NAMES, 2)
    assert directories == [
        *("engines/c", "engines/d", "engines/e", "releases/c", "releases/d", "releases/e", "weights/old")
    ]


def test_failed_release_does_not_count_as_kept() -> None:
    releases = [made("a", 5), made("b", 4), made("c", 3, "failed then"), made("d", 2), made("e", 1)]
    directories, _ = garbage(releases, LINKS, NAMES, 3)
    assert "releases/c" in directories
    assert "releases/b" not in directories


def test_nothing_is_removed_when_running_release_is_unknown() -> None:
    for links in ({}, {"current": "gone"}):
        assert garbage(RELEASES, links, NAMES, 2) == ([], [])


def test_nothing_is_removed_beside_an_unreadable_release() -> None:
    assert garbage(RELEASES[1:], LINKS, NAMES, 2) == ([], [])


def test_unreadable_release_is_named_and_partials_are_garbage() -> None:
    unfinished = ["weights/.x.partial", "releases/.y.partial", "engines/.z.partial.replaced"]
    assert unread(RELEASES[1:], [*NAMES, *unfinished]) == ["releases/a"]
    assert unread(RELEASES, [*NAMES, *unfinished]) == []
    directories, _ = garbage(RELEASES, LINKS, [*NAMES, *unfinished], 5)
    assert directories == sorted([*unfinished, "weights/old"])


def test_stored_release_is_read_from_its_own_files() -> None:
    document = (
        '{"model": "m", "stack": {"release": "24.09"}, "images": {"tritonhost/serving:i": {}},\n'
        '"artifacts": {"weights": {"key": "w"}, "weights-2": {"key": "v"}}}'
    )
    golden = '{"golden": [{"model": "ensemble"}], "address": "10.0.0.1", "grpc_port": 9001}'
    found = stored("r", 7, "proven now", document, golden)
    assert found.artifacts == (("weights", "w"), ("weights", "v"))
    assert (found.address, found.grpc_port, found.golden) == ("10.0.0.1", 9001, ({"model": "ensemble"},))
    lines = [
        "\x1fr\t7\tproven now",
        *document.split("\n"),
        "\x1e",
        golden,
        "\x1fother\t1\t",
        "no JSON",
        "\x1e",
        "",
    ]
    assert StoredReleases().process(lines) == [found]


def test_artifacts_of_the_current_plan_are_kept() -> None:
    assert garbage(RELEASES, LINKS, NAMES, 3, ["weights/old", "tritonhost/serving:old", "engines/a"]) == (
        ["engines/b", "releases/a", "releases/b"],
        [],
    )
