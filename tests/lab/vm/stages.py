"""The stages of deploy.py that change a host itself, for a machine whose distribution has no dnf: test_machine.py runs it with pyinfra."""

from __future__ import annotations

from pyinfra import host

from operations import network, selinux, storage
from operations.plan.explain import gpus_from
from operations.plan.inventory.settings import from_host_data
from operations.plan.planning import plan_release
from operations.pyinfra_patches import data_of

release = plan_release(from_host_data(data_of(host), host.name), gpus_from("NVIDIA A10:1"), selinux=True)

storage.root_grown(name="Grow the root file system to its disk")
storage.mount_local_disks(release=release)
selinux.allow(release=release)
network.guard(release=release)
