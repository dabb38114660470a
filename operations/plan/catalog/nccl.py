"""NCCL's settings for engines that span hosts, by OCI shape, as Oracle publishes them.

Sources: oracle-quickstart/oci-hpc-oke, manifests/nccl-tests (one file a shape), and oracle-quickstart/oci-hpc, playbooks/roles/nccl-conf/templates.
Both have the same lists of adapters; where the rest differs, the first is used. An engine within one host needs none of them.
"""

from __future__ import annotations

from collections.abc import Mapping

_ALL = {
    "NCCL_IB_GID_INDEX": "3",
    "NCCL_IB_TC": "41",
    "NCCL_IB_SL": "0",
    "NCCL_IB_SPLIT_DATA_ON_QPS": "0",
    "NCCL_IB_TIMEOUT": "22",
}
_AMPERE = {**_ALL, "NCCL_IB_QPS_PER_CONNECTION": "4"}
_HOPPER = {**_ALL, "NCCL_CUMEM_ENABLE": "0", "NCCL_IGNORE_CPU_AFFINITY": "1", "NCCL_SOCKET_IFNAME": "eth0"}


def _adapters(*numbers: int) -> str:
    # a leading = matches whole names: mlx5_1 is not mlx5_10
    return "=" + ",".join(f"mlx5_{number}" for number in numbers)


_A100_40 = _adapters(0, 2, 6, 8, 10, 12, 14, 16, 1, 3, 7, 9, 11, 13, 15, 17)
_A100_80 = _adapters(5, 6, 7, 8, 1, 2, 3, 4, 14, 15, 16, 17, 9, 10, 11, 12)
_H100 = _adapters(0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17)
_H200 = _adapters(0, 3, 4, 5, 6, 9, 10, 11)

# shape -> variables; a shape that is not here has no RDMA network, or Oracle publishes none for it
NCCL: Mapping[str, Mapping[str, str]] = {
    "BM.GPU4.8": {"NCCL_IB_HCA": _A100_40, **_AMPERE},
    "BM.GPU.A100-v2.8": {"NCCL_IB_HCA": _A100_80, **_AMPERE},
    "BM.GPU.B4.8": {"NCCL_IB_HCA": _A100_80, **_AMPERE},
    "BM.GPU.H100.8": {"NCCL_IB_HCA": _H100, **_HOPPER},
    "BM.GPU.H200.8": {"NCCL_IB_HCA": _H200, **_HOPPER},
    "BM.GPU.B200.8": {"NCCL_IB_HCA": _H200, **_HOPPER},
}
