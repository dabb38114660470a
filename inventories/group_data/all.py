"""The release: what every host should be. An upgrade is a change of this file.

Every key is described, with its type and bounds, in operations/plan/settings.py. `{os_major}` stands for the host's
Oracle Linux major version: a literal, because $releasever may expand to a minor version there.
"""

_sudo = True

# Host keys are checked, never accepted on first sight: pyinfra's own default is accept-new, and it does not read
# StrictHostKeyChecking from an ssh configuration.
ssh_strict_host_key_checking = "yes"
# ServerAliveInterval has no key of its own in pyinfra; without it a connection that a NAT forgot hangs for ever.
ssh_config_file = "inventories/ssh_config"

# of a release that meets every floor of operations/plan/version_floors.py
model = "gpt2-medium"

docker_repository_url = "https://download.docker.com/linux/rhel/{os_major}/$basearch/stable"
docker_gpg_key_url = "https://download.docker.com/linux/rhel/gpg"
# https://docs.docker.com/engine/install/rhel/
docker_gpg_fingerprint = "060A61C51B558A7F742B77AAC52FEB6B621E9F35"
# 28.5.2 is the first with the runc fixes CVE-2025-31133, -52565 and -52881:
# https://docs.docker.com/engine/release-notes/28/. These packages were not installed on a real host yet.
docker_packages = {
    "docker-ce": "3:28.5.2-1.el{os_major}",
    "docker-ce-cli": "1:28.5.2-1.el{os_major}",
    "containerd.io": "1.7.29-1.el{os_major}",
    "docker-buildx-plugin": "0.29.1-1.el{os_major}",
}

nvidia_container_toolkit_repository_url = "https://nvidia.github.io/libnvidia-container/stable/rpm/$basearch"
nvidia_container_toolkit_gpg_key_url = "https://nvidia.github.io/libnvidia-container/gpgkey"
nvidia_container_toolkit_gpg_fingerprint = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
# 1.19.1 fixes CVE-2026-24260 (NVIDIA security bulletin 5850)
nvidia_container_toolkit_packages = {
    "nvidia-container-toolkit": "1.19.1-1",
    "nvidia-container-toolkit-base": "1.19.1-1",
    "libnvidia-container-tools": "1.19.1-1",
    "libnvidia-container1": "1.19.1-1",
}
