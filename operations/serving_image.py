"""The image that converts, builds and serves, from sources or NGC."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api.deploy import deploy
from pyinfra.api.operation import operation

from operations import detached
from operations.facts.artifacts import ImageId, ImageRecord
from operations.plan.artifacts import ServingImage
from operations.plan.release import Release


@deploy("Serving image")
def build(release: Release) -> None:
    """An image is built from the checkout; a newer one that is pulled carries the templates itself."""
    if release.source is None:
        made(release, release.image, "Build or pull the serving image")
    elif release.image_first:
        made(release, release.image, "Pull the serving image")
        detached.artifact(name="Take the templates out of the image", wanted=release.source)
    else:
        detached.artifact(name="Check out tensorrtllm_backend", wanted=release.source)
        made(release, release.image, "Build or pull the serving image")


def made(release: Release, image: ServingImage, name: str) -> None:
    """An image is here under its tag, made by its recipe, and its id is on record."""
    record = image.record(release.data_root)
    own(name=f"Trust the tag of the {image.name} image", image=image, record=record)
    detached.image(name=name, wanted=image)
    recorded(name=f"Record the {image.name} image", image=image, record=record)


@operation()
def own(image: ServingImage, record: str) -> Generator[str, None, None]:
    """
    The image's tag is at the image that was made for it, or is not there at all.

    + image: whose tag
    + record: the file that holds the id of the image that was made

    A tag can be pointed to another image by whoever may speak to docker. It is pointed back where the right one is
    still here; otherwise it is taken away, and the image is made again from its recipe.
    """
    tagged, wanted = host.get_fact(ImageId, tag=image.tag), host.get_fact(ImageRecord, path=record)
    if not wanted or tagged == wanted:
        host.noop(f"{image.tag} is the image that was made")
        return
    if host.get_fact(ImageId, tag=wanted):
        yield f"docker tag {wanted} {image.tag}"
    elif tagged:
        # its layers stay where a container runs from it, of which docker complains
        yield f"docker rmi --force --no-prune {image.tag} || ! docker image inspect {image.tag} >/dev/null 2>&1"
        yield f"rm -f {shlex.quote(record)}"
    else:
        # both are gone: whoever finds the tag the next time finds what was made since, and must not take it away again
        yield f"rm -f {shlex.quote(record)}"


@operation()
def recorded(image: ServingImage, record: str) -> Generator[str, None, None]:
    """
    The record holds the id of the image under its tag: what every release of it is served from.

    + image: which image; it was made just now, or is known to be the one that was
    + record: the file, one for all releases: where a lost image is built again, with another id, they go on with it
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
