"""The image that converts, builds and serves: built from sources, or pulled from NGC."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import artifacts
from operations.facts.artifacts import ImageId, ImageRecord
from operations.plan.artifacts.artifact import ServingImage
from operations.plan.release import Release


@deploy("Serving image")
def build(release: Release) -> None:
    """An image that is built needs the checkout first; a newer one that is pulled contains the templates itself."""
    if release.source is None:
        made(release.data_root, release.image, "Build or pull the serving image")
    elif release.image_first:
        made(release.data_root, release.image, "Pull the serving image")
        artifacts.artifact(name="Take the templates out of the image", wanted=release.source)
    else:
        artifacts.artifact(name="Check out tensorrtllm_backend", wanted=release.source)
        made(release.data_root, release.image, "Build or pull the serving image")


def made(data_root: str, image: ServingImage, name: str) -> None:
    """The image is on the host under its tag, made by its recipe, and its id is recorded below the data root."""
    record = image.record(data_root)
    own(name=f"Trust the tag of the {image.name} image", image=image, record=record)
    artifacts.image(name=name, wanted=image)
    recorded(name=f"Record the {image.name} image", image=image, record=record)


@operation()
def own(image: ServingImage, record: str) -> Generator[str, None, None]:
    """
    The tag points to the image that was made for it, or does not exist.

    + image: the image with this tag
    + record: the file that holds the id of the image that was made

    Any account that may use docker can point a tag to another image. If the right image still exists, the tag is pointed
    back to it. Otherwise the tag is removed, and the image is made again from its recipe.
    """
    tagged, wanted = host.get_fact(ImageId, tag=image.tag), host.get_fact(ImageRecord, path=record)
    if not wanted or tagged == wanted:
        host.noop(f"{image.tag} is the image that was made")
        return
    if host.get_fact(ImageId, tag=wanted):
        yield f"docker tag {wanted} {image.tag}"
    elif tagged:
        # if a container runs from the image, docker keeps its layers and prints an error
        yield f"docker rmi --force --no-prune {image.tag} || ! docker image inspect {image.tag} >/dev/null 2>&1"
        yield f"rm -f {shlex.quote(record)}"
    else:
        # Both are gone. The record goes too, or the next run would delete the image that was built since.
        yield f"rm -f {shlex.quote(record)}"


@operation()
def recorded(image: ServingImage, record: str) -> Generator[str, None, None]:
    """
    The record holds the id of the tagged image, from which all its releases are served.

    + image: which image; it was made just now, or is known to be the recorded one
    + record: one file for all releases: if a lost image is built again, with another id, they all use the new one
    """
    tagged = host.get_fact(ImageId, tag=image.tag)
    if tagged and tagged == host.get_fact(ImageRecord, path=record):
        host.noop(f"{record} has {tagged}")
        return
    directory, _, name = record.rpartition("/")
    yield (
        f"umask 022; mkdir -p {shlex.quote(directory)} && cd {shlex.quote(directory)} && "
        f"docker image inspect --format '{{{{.Id}}}}' {image.tag} >.{name}.new && "
        f"sync -f .{name}.new && mv -T .{name}.new {name}"
    )
