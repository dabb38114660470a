"""A tag is never trusted: the image that was made is known by its id."""

from __future__ import annotations

import pytest

from operations.facts.artifacts import ImageId, ImageRecord
from operations.serving_image import own, recorded
from tests.operations.harness import Host, commands_of
from tests.unit.builders import release

WANTED = release()
IMAGE = WANTED.image
RECORD = IMAGE.record(WANTED.data_root)
MADE, OTHER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


class Engine(Host):
    """A host whose docker engine has these images: tag -> id."""

    def __init__(self, record: str, *images: str, tagged: str = "") -> None:
        super().__init__({ImageRecord: record})
        self.images = {image: image for image in images} | {IMAGE.tag: tagged}

    def get_fact(self, fact: type, **arguments: object) -> object:
        if fact is ImageId:
            return self.images.get(str(arguments["tag"]), "")
        return super().get_fact(fact, **arguments)


@pytest.mark.parametrize(
    "host",
    [
        Engine(MADE, MADE, tagged=MADE),
        # made before ids were recorded: adopted, as it serves
        Engine("", MADE, tagged=MADE),
        # neither: there is nothing to take back
        Engine(""),
    ],
)
def test_a_tag_that_is_right_or_not_there_is_left(host: Engine) -> None:
    assert commands_of(own, host, image=IMAGE, record=RECORD) == []
    assert host.noop_description


@pytest.mark.parametrize("tagged", ["", OTHER])
def test_a_tag_comes_back_to_the_image_that_is_still_here(tagged: str) -> None:
    host = Engine(MADE, MADE, OTHER, tagged=tagged)
    assert commands_of(own, host, image=IMAGE, record=RECORD) == [f"docker tag {MADE} {IMAGE.tag}"]


def test_an_image_that_nobody_made_is_not_used_in_its_place() -> None:
    taken, forgotten = commands_of(own, Engine(MADE, OTHER, tagged=OTHER), image=IMAGE, record=RECORD)
    assert taken.startswith(f"docker rmi --force --no-prune {IMAGE.tag} ")
    assert forgotten == f"rm -f {RECORD}"


def test_the_id_of_a_lost_image_is_forgotten_so_that_what_is_made_next_is_not_taken_away() -> None:
    assert commands_of(own, Engine(MADE), image=IMAGE, record=RECORD) == [f"rm -f {RECORD}"]


def test_the_id_is_recorded_once_and_by_one_rename() -> None:
    assert commands_of(recorded, Engine(MADE, tagged=MADE), image=IMAGE, record=RECORD) == []
    for before in ("", OTHER):
        [command] = commands_of(recorded, Engine(before, tagged=MADE), image=IMAGE, record=RECORD)
        assert f"docker image inspect --format '{{{{.Id}}}}' {IMAGE.tag} >.{IMAGE.key}.new" in command
        assert command.endswith(f"mv -T .{IMAGE.key}.new {IMAGE.key}")
