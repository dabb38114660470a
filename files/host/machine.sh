# What the machine is: its boot, kernel, next kernel, drivers, fabric manager, and versions of packages. Input: PACKAGES (one per line).

PATH=$PATH:/usr/sbin:/sbin
echo "boot: $(cat /proc/sys/kernel/random/boot_id)"
echo "kernel: $(uname -r)"
echo "default: $(grubby --default-kernel 2>/dev/null)"
timeout -k 5 30 nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | grep -E '^[0-9.]+$' | sed 's/^/driver: /'
if systemctl cat nvidia-fabricmanager.service >/dev/null 2>&1; then
    echo "fabric: $(systemctl is-active nvidia-fabricmanager.service)"
fi
for name in $PACKAGES; do
    # of several kernels the newest
    rpm -q --qf '%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n' "$name" 2>/dev/null | grep -E '^[0-9]+:' | sort -V | tail -n 1 |
        sed "s/^/package: $name /"
done
echo "end: yes"
