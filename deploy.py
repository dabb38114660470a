"""Converge Oracle Linux GPU hosts into NVIDIA Triton + TensorRT-LLM serving hosts.

    pyinfra inventories/oci.py deploy.py --dry           # what would change
    pyinfra inventories/oci.py deploy.py -y              # converge; safe to re-run
    pytest tests/verify --inventory inventories/oci.py   # verify it

To upgrade, change inventories/group_data/all.py or the model's profile and run the same commands.
"""

from operations import convergence, watched_hosts

# One round trip: what the host should be, and whether it already is. If so, nothing below runs on it. Otherwise the
# preflight runs: a host that does not fit is excluded here, with a list of everything that is wrong.
wanted = convergence.look()

if wanted:
    # here, so that a run which changes nothing does not wait for them
    from operations import (
        canary,
        container_runtime,
        database,
        door,
        drain,
        engine,
        exporters,
        front,
        gateway,
        host_record,
        lock,
        model_repository,
        monitoring,
        network,
        ownership,
        packages,
        release,
        rollout,
        selinux,
        serving_image,
        storage,
        swap,
        triton_service,
        wave,
        weights,
    )

    lock.take(release=wanted)
    monitoring.begin(release=wanted)

    # Host: of several services, one does this for all
    rollout.once_a_host(
        release=wanted,
        steps=[
            host_record.begin_early,
            storage.grow_root_file_system,
            host_record.begin,
            packages.install_tools,
            storage.mount_local_disks,
            ownership.take_back,
            selinux.allow,
        ],
    )
    # these may restart docker: now if the host does not serve, otherwise in its turn of the rollout
    rollout.unless_serving(release=wanted, steps=[packages.install_runtime, container_runtime.configure])

    # Artifacts, on all hosts in parallel, each named after what it is made from, so that an unchanged one is never made again
    serving_image.build(release=wanted)
    weights.download(release=wanted)
    engine.build(release=wanted)

    # Release: it is complete before anything points to it
    model_repository.lay_out(release=wanted)

    # Everything that clients could notice: one serving host after another, each proven before the next one begins
    rollout.host_by_host(
        release=wanted,
        steps=[
            drain.begin,
            wave.change,
            packages.install_runtime,
            container_runtime.configure,
            network.guard,
            database.run,
            triton_service.install,
            front.install,
            door.install,
            gateway.install,
            exporters.install,
            swap.serve,
            front.lead,
            door.lead,
            gateway.lead,
            network.close,
            canary.begin,
            drain.end,
            canary.decide,
            exporters.lead,
            monitoring.install,
        ],
        after_failure=drain.after_failure,
    )
    release.collect(release=wanted)

# A host of the group `monitoring` serves no model: it watches the others, with Prometheus, Alertmanager and Grafana
watching = watched_hosts.watches()

if watching:
    from operations import monitoring_server

    monitoring_server.converge()

# A host of the group `front` serves no model either: clients reach the others through it
balancing = watched_hosts.balances()

if balancing:
    from operations import load_balancer

    load_balancer.converge()
