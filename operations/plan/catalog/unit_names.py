"""Names of units that are the distribution's own."""

from __future__ import annotations

# Units that a host of Oracle Linux has, or what the tool itself installs: a unit file of ours would take their place.
OTHERS_UNITS = frozenset(
    [
        "auditd",
        "chronyd",
        "cloud-config",
        "cloud-final",
        "cloud-init",
        "crond",
        "dbus",
        "dbus-broker",
        "dnf-makecache",
        "firewalld",
        "getty",
        "gssproxy",
        "haproxy",
        "irqbalance",
        "iscsid",
        "kdump",
        "lvm2-monitor",
        "mdmonitor",
        "multipathd",
        "networkmanager",
        "nftables",
        "nginx",
        "oracle-cloud-agent",
        "ocid",
        "polkit",
        "postgresql",
        "rngd",
        "rpcbind",
        "rsyslog",
        "selinux-autorelabel",
        "smartd",
        "ssh",
        "sshd",
        "sssd",
        "tuned",
    ]
)
