"""Converge Oracle Linux GPU hosts into NVIDIA Triton + TensorRT-LLM serving hosts.

    pyinfra inventories/oci.py deploy.py --dry           # what would change
    pyinfra inventories/oci.py deploy.py -y              # converge; safe to re-run
    pytest tests/verify --inventory inventories/oci.py   # prove it

To upgrade, change inventories/group_data/all.py or the model's profile and run the same commands.
"""

from pyinfra import config

from operations import (
    container_runtime,
    convergence,
    database,
    engine,
    lock,
    model_repository,
    packages,
    release,
    serving_image,
    storage,
    triton_service,
    weights,
)

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<4"

# One round trip: what the host should be, and whether it is that already. Then nothing below is run on it.
wanted = convergence.look()

if wanted:
    lock.take(release=wanted)

    # Host
    storage.grow_root_file_system(release=wanted)
    packages.install(release=wanted)
    container_runtime.configure(release=wanted)

    # Artifacts, each named by what it is made from, so that an unchanged one is never made again
    serving_image.build(release=wanted)
    weights.download(release=wanted)
    engine.build(release=wanted)

    # Release: complete before anything points to it, proven before the run succeeds
    model_repository.lay_out(release=wanted)
    database.run(release=wanted)
    triton_service.install(release=wanted)
    release.switch(release=wanted)
    triton_service.run(release=wanted)
    release.collect(release=wanted)
