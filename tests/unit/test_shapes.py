import pytest

from operations.plan.catalog.shapes import SHAPES, Shape, shape
from operations.plan.errors import PlanError
from operations.plan.explain import KNOWN_GPUS, gpus_from

# nvidia-smi --query-gpu=name,memory.total of each, as public reports show it
REPORTED = {
    "B300": ("NVIDIA B300 SXM6 AC", 275040),
    "B200": ("NVIDIA B200", 183359),
    "RTX PRO 6000": ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887),
    "H200": ("NVIDIA H200", 143771),
    "H100": ("NVIDIA H100 80GB HBM3", 81559),
    "A100 40": ("NVIDIA A100-SXM4-40GB", 40960),
    "A100 80": ("NVIDIA A100-SXM4-80GB", 81920),
    "L40S": ("NVIDIA L40S", 46068),
    "A10": ("NVIDIA A10", 23028),
    "V100": ("Tesla V100-SXM2-16GB", 16160),
    "P100": ("Tesla P100-SXM2-16GB", 16280),
}


def kind(of: Shape) -> str:
    return f"{of.gpu} {of.gpu_memory_gib}" if of.gpu == "A100" else of.gpu


@pytest.mark.parametrize("found", SHAPES.values(), ids=lambda found: found.name)
def test_shape_matches_only_its_own_gpus(found: Shape) -> None:
    matching = {name for name, (gpu, memory) in REPORTED.items() if found.has_gpu(gpu, memory)}
    assert matching == {kind(found)}


def test_unknown_gpu_memory_is_matched_by_name_only() -> None:
    assert SHAPES["BM.GPU4.8"].has_gpu("NVIDIA A100-SXM4-80GB", 0)
    assert not SHAPES["BM.GPU.A10.4"].has_gpu("NVIDIA A100-SXM4-80GB", 0)
    assert not SHAPES["BM.GPU.A10.4"].has_gpu("NVIDIA A10G", 0)


# https://docs.oracle.com/en-us/iaas/Content/Compute/References/computeshapes.htm names no other
@pytest.mark.parametrize("found", SHAPES.values(), ids=lambda found: found.name)
def test_every_shape_has_one_known_gpu_to_plan_for(found: Shape) -> None:
    known = [name for name, (_, memory) in KNOWN_GPUS.items() if found.has_gpu(name, memory)]
    assert len(known) == 1
    assert KNOWN_GPUS[known[0]][0] == found.compute_capability
    planned_for = gpus_from(f"{known[0]}:{found.gpu_count}")
    assert [gpu.name for gpu in planned_for] == known * found.gpu_count


@pytest.mark.parametrize("found", SHAPES.values(), ids=lambda found: found.name)
def test_gpu_count_is_the_last_part_of_the_shape_name(found: Shape) -> None:
    assert found.name.endswith(f".{found.gpu_count}")
    assert (found.local_nvme.count == 0) == (found.local_nvme.total_tb == 0)
    # only bare metal has local disks and NVSwitch among these
    if found.name.startswith("VM."):
        assert found.local_nvme.count == 0
        assert not found.nvswitch


def test_misspelt_shape_is_refused_with_suggestion_and_list() -> None:
    with pytest.raises(PlanError) as caught:
        shape("BM.GPU4.9", "gpu-1: shape")
    text = str(caught.value)
    assert text.startswith("gpu-1: shape: found BM.GPU4.9, expected an OCI shape with NVIDIA GPUs")
    assert "did you mean BM.GPU4.8?" in text
    assert all(name in text for name in SHAPES)
    assert "\n" not in text


@pytest.mark.parametrize("name", ["", "x" * 5000, "MI300X", "BM.Standard.E4.128"])
def test_name_that_is_not_a_gpu_shape_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(PlanError, match=r"known: BM\.GPU\.B300\.8, .*VM\.GPU2\.1"):
        shape(name, "here")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("BM.GPU.B300.8", ("B300", 8, "10.3", 4096, 128, 8, 30.72, True)),
        ("BM.GPU.RTXPRO.8", ("RTX PRO 6000", 8, "12.0", 3072, 144, 8, 61.44, False)),
        ("BM.GPU.B4.8", ("A100", 8, "8.0", 2048, 128, 4, 27.2, True)),
    ],
)
def test_shapes_of_2026_are_known(name: str, values: tuple[object, ...]) -> None:
    found = shape(name, "here")
    nvme = found.local_nvme
    assert values == (
        *(found.gpu, found.gpu_count, found.compute_capability, found.memory_gib, found.ocpus),
        *(nvme.count, nvme.total_tb, found.nvswitch),
    )


def test_a_known_shape_is_found() -> None:
    found = shape("BM.GPU.A100-v2.8", "here")
    assert (found.gpu, found.gpu_count, found.gpu_memory_gib, found.nvswitch) == ("A100", 8, 80, True)
    assert (found.local_nvme.count, found.local_nvme.total_tb) == (4, 27.2)
