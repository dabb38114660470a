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
def test_correct_or_missing_tag_is_not_changed(host: Engine) -> None:
    assert commands_of(own, host, image=IMAGE, record=RECORD) == []
    assert host.noop_description


@pytest.mark.parametrize("tagged", ["", OTHER])
def test_tag_is_restored_to_the_recorded_image(tagged: str) -> None:
    host = Engine(MADE, MADE, OTHER, tagged=tagged)
    assert commands_of(own, host, image=IMAGE, record=RECORD) == [f"docker tag {MADE} {IMAGE.tag}"]


def test_tag_of_an_unrecorded_image_is_removed() -> None:
    taken, forgotten = commands_of(own, Engine(MADE, OTHER, tagged=OTHER), image=IMAGE, record=RECORD)
    assert taken.startswith(f"docker rmi --force --no-prune {IMAGE.tag} ")
    assert forgotten == f"rm -f {RECORD}"


def test_record_of_a_lost_image_is_removed() -> None:
    assert commands_of(own, Engine(MADE), image=IMAGE, record=RECORD) == [f"rm -f {RECORD}"]


def test_image_id_is_recorded_once_by_one_rename() -> None:
    assert commands_of(recorded, Engine(MADE, tagged=MADE), image=IMAGE, record=RECORD) == []
    for before in ("", OTHER):
        [command] = commands_of(recorded, Engine(before, tagged=MADE), image=IMAGE, record=RECORD)
        assert f"docker image inspect --format '{{{{.Id}}}}' {IMAGE.tag} >.{IMAGE.key}.new" in command
        assert command.endswith(f"mv -T .{IMAGE.key}.new {IMAGE.key}")
