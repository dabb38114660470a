"""What every host should be. To upgrade, change this file.

operations/plan/inventory/settings.py describes every key, with its type and bounds. `{os_major}` stands for the host's
Oracle Linux major version: a literal, because $releasever may expand to a minor version there.
"""

_sudo = True

# Host keys are checked, never accepted on first sight: pyinfra's own default is accept-new, and it does not read
# StrictHostKeyChecking from an ssh configuration.
ssh_strict_host_key_checking = "yes"
# pyinfra has no key for ServerAliveInterval; without it a connection that a NAT has dropped hangs without end.
ssh_config_file = "inventories/ssh_config"

# its release meets every floor of operations/plan/catalog/version_floors.py
model = "gpt2-medium"

docker_repository_url = "https://download.docker.com/linux/rhel/{os_major}/$basearch/stable"
docker_gpg_key_url = "https://download.docker.com/linux/rhel/gpg"
# https://docs.docker.com/engine/install/rhel/
docker_gpg_fingerprint = "060A61C51B558A7F742B77AAC52FEB6B621E9F35"
# 29.9.0 fixes CVE-2026-97032 and four more: https://github.com/moby/moby/releases/tag/docker-v29.9.0. It requires
# containerd.io 2.1.5 or later. 2.2.6 and buildx 0.35.0 were seen in Docker's repositories of Enterprise Linux 8 beside 29.6.2;
# which buildx was published with 29.9.0 is not known, and any version works with it. These packages have not been installed on
# a real host yet: `python -m operations.currency` shows whether Docker's repository has them, and what is newer.
docker_packages = {
    "docker-ce": "3:29.9.0-1.el{os_major}",
    "docker-ce-cli": "1:29.9.0-1.el{os_major}",
    "containerd.io": "2.2.6-1.el{os_major}",
    "docker-buildx-plugin": "0.35.0-1.el{os_major}",
}
# From 29 on, docker keeps the images of a new host under /var/lib/containerd, even with another data-root; on a host that had an
# older docker they stay where they are. Here all hosts keep them in docker's own directory, which the preflight measures.
docker_daemon_settings = {"features": {"containerd-snapshotter": False}}

nvidia_container_toolkit_repository_url = (
    "https://nvidia.github.io/libnvidia-container/{channel}/rpm/$basearch"
)
nvidia_container_toolkit_gpg_key_url = "https://nvidia.github.io/libnvidia-container/gpgkey"
nvidia_container_toolkit_gpg_fingerprint = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
# from 1.19.1 on without CVE-2026-24260 (NVIDIA security bulletin 5850)
nvidia_container_toolkit_packages = {
    "nvidia-container-toolkit": "1.20.0-1",
    "nvidia-container-toolkit-base": "1.20.0-1",
    "libnvidia-container-tools": "1.20.0-1",
    "libnvidia-container1": "1.20.0-1",
}
