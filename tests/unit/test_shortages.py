"""What a host may lack: said before hours of work, and only of what has still to be made."""

from dataclasses import replace

from operations.plan.observed.observed import BlockDevice, DataRoot, LocalDisks, Signature
from operations.plan.planning import plan_release
from operations.plan.preflight.shortages import needed, needed_together, shortages
from operations.plan.profile.profiles import load_profile
from operations.plan.release import Release
from tests.unit.builders import DIGEST, converged, gpu, release, settings

GIB = 2**30


def nemo() -> Release:
    image = {"nvidia/tritonserver:24.08-trtllm-python-py3": DIGEST}
    big = gpu(name="NVIDIA A100-SXM4-40GB", compute_capability="8.0", memory_total_mib=40960)
    return plan_release(settings(image_digests=image), [big], "9", load_profile("mistral-nemo"))


def test_small_disk_is_a_warning_with_what_needs_it() -> None:
    wanted = nemo()
    bare = replace(converged(wanted), artifacts={}, images={}, data_free=30 * GIB, memory=240 * GIB)
    [warning] = shortages(wanted, bare)
    assert warning.startswith(
        "disk: found 30.0 GiB free under /var/lib/tritonhost, expected about 110.4 GiB ("
    )
    assert "weights 22.8 GiB" in warning


def test_local_disks_count_with_their_future_size() -> None:
    wanted = replace(nemo(), settings=settings(local_disks="raid0"))
    disks = (BlockDevice("nvme0n1", "disk", 50 * GIB), BlockDevice("nvme1n1", "disk", 50 * GIB))
    blank = LocalDisks(disks, {"nvme0n1": (), "nvme1n1": ()})
    bare = replace(converged(wanted), artifacts={}, images={}, data_free=1, memory=240 * GIB, local=blank)
    assert shortages(wanted, bare)[0].startswith("disk: found 100.0 GiB free under /var/lib/tritonhost")
    known = replace(wanted, settings=settings(local_disks="raid0", shape="BM.GPU.A10.4"))
    assert shortages(known, bare) == ()
    # an array that is there and not mounted
    member = (Signature("linux_raid_member", "any:tritonhost", "u"),)
    stopped = replace(blank, signatures={"nvme0n1": member, "nvme1n1": member})
    assert shortages(wanted, replace(bare, local=stopped)) == ()


def test_local_disks_of_unknown_size_are_ignored() -> None:
    wanted = replace(nemo(), settings=settings(local_disks="raid0"))
    small = replace(converged(wanted), artifacts={}, images={}, data_free=30 * GIB, memory=240 * GIB)
    assert shortages(wanted, small) == ()
    mounted = replace(small, data_root=DataRoot(mount=wanted.data_root))
    assert shortages(wanted, mounted)[0].startswith("disk: found 30.0 GiB free")


def test_low_memory_is_a_warning_with_its_exit_code() -> None:
    wanted = nemo()
    bare = replace(converged(wanted), artifacts={}, data_free=900 * GIB, memory=15 * GIB)
    [warning] = shortages(wanted, bare)
    assert "host memory: found 15.0 GiB, expected about 61.0 GiB" in warning
    assert "137" in warning


def test_complete_artifacts_need_nothing() -> None:
    wanted = nemo()
    assert shortages(wanted, replace(converged(wanted), data_free=1, memory=1)) == ()


def test_unread_values_are_not_a_shortage() -> None:
    wanted = nemo()
    assert shortages(wanted, replace(converged(wanted), artifacts={}, images={})) == ()


def test_model_without_numbers_is_not_forecast() -> None:
    wanted = release()
    assert shortages(wanted, replace(converged(wanted), artifacts={}, data_free=1, memory=1)) == ()


def test_gpu_memory_used_by_another_process_is_a_warning() -> None:
    wanted = nemo()  # of its 40 GiB, 22 are free
    serves = replace(converged(wanted), data_free=900 * GIB, memory=240 * GIB)
    assert shortages(wanted, serves) == ()
    [warning] = shortages(wanted, replace(serves, container=None))
    assert warning.startswith("GPU 0 (NVIDIA A100-SXM4-40GB): 22.0 GiB of 40.0 GiB free")
    assert "another process uses it" in warning


def test_space_of_services_is_summed_and_shared_artifacts_once() -> None:
    one = nemo()
    bare = replace(converged(one), artifacts={}, images={})
    alone = needed(one, bare)
    assert alone and all(alone[0].values())
    # the builds run at the same time
    assert needed_together([one, one], bare) == (alone[0], 2 * alone[1])
    big = gpu(name="NVIDIA A100-SXM4-80GB", compute_capability="8.0", memory_total_mib=81920)
    image = {"nvidia/tritonserver:24.08-trtllm-python-py3": DIGEST}
    other = plan_release(settings(image_digests=image), [big], "9", load_profile("mistral-nemo"))
    sizes, _ = needed_together([one, other], bare) or ({}, 0)
    assert sizes["engine"] == 2 * alone[0]["engine"] and sizes["weights"] == alone[0]["weights"]
    # what one takes may not be known, as of a profile without an architecture
    assert needed_together([release(), one], bare) is None
    assert needed_together([one, release()], bare) == alone
