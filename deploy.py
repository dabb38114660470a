"""Converge Oracle Linux GPU hosts into NVIDIA Triton + TensorRT-LLM serving hosts.

    pyinfra inventories/oci.py deploy.py --dry           # what would change
    pyinfra inventories/oci.py deploy.py -y              # converge; safe to re-run
    pytest tests/verify --inventory inventories/oci.py   # prove it

To upgrade, change inventories/group_data/all.py or the model's profile and run the same commands.
"""

from operations import (
    container_runtime,
    convergence,
    database,
    engine,
    front,
    gateway,
    lock,
    model_repository,
    network,
    packages,
    release,
    rollout,
    selinux,
    serving_image,
    storage,
    swap,
    triton_service,
    weights,
)

# One round trip: what the host should be, and whether it is that already. Then nothing below is run on it. Where it is
# not, the preflight: a host that does not fit is left out here, with everything that is wrong with it at once.
wanted = convergence.look()

if wanted:
    lock.take(release=wanted)

    # Host
    storage.grow_root_file_system(release=wanted)
    packages.install_tools(release=wanted)
    storage.mount_local_disks(release=wanted)
    selinux.allow(release=wanted)
    # what may restart docker: at once where nobody is served, else in the host's turn
    rollout.unless_serving(release=wanted, steps=[packages.install_runtime, container_runtime.configure])

    # Artifacts, on all hosts at once, each named by what it is made from, so that an unchanged one is never made again
    serving_image.build(release=wanted)
    weights.download(release=wanted)
    engine.build(release=wanted)

    # Release: complete before anything points to it
    model_repository.lay_out(release=wanted)

    # Whatever people could notice: one serving host after another, each proven before the next one begins
    rollout.host_by_host(
        release=wanted,
        steps=[
            packages.install_runtime,
            container_runtime.configure,
            network.guard,
            database.run,
            triton_service.install,
            front.install,
            gateway.install,
            swap.serve,
            front.lead,
            gateway.lead,
            network.close,
        ],
    )
    release.collect(release=wanted)
