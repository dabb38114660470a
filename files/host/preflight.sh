# Reads what the preflight needs to know of a host, in one round trip of at most about 8 s, and changes nothing.
#
# Input, as shell variables set before this text:
#   DATA_ROOT, DOCKER_ROOT
#   METADATA                the address of OCI's instance metadata
#   NAMES, URLS             lists to resolve and to reach, one word per line
# Output: sections as those of probe.sh; operations/facts/host_health.py parses them. Each command that may wait has its own time
# limit. The queries of the network and of the GPUs run in parallel with the rest; their output waits in a pipe for its section.

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin

. ./sections.sh
one_line() { printf '%s' "$1" | tr '\n\t' '  '; }
IFS='
'
set -f

# Each answer is one short line, so that parallel answers do not mix.
resolve() { printf 'name\t%s\t%s\n' "$1" "$(timeout 4 getent ahosts "$1" | sed -n '1s/ .*//p')"; }
reach() {
    said=$(curl --globoff --head --silent --show-error --connect-timeout 4 --max-time 5 --output /dev/null \
        --write-out 'HTTP %{http_code}' "$1" 2>&1)
    printf 'source\t%s\t%s\t%s\n' "$1" "$?" "$(one_line "$said")"
}
metadata() {
    said=$(curl --silent --fail --connect-timeout 1 --max-time 1 --noproxy '*' --header 'Authorization: Bearer Oracle' "$METADATA")
    printf 'metadata\t%s\t%s\n' "$?" "$(one_line "$said")"
}
network() {
    for name in $NAMES; do resolve "$name" & done
    if has curl; then
        metadata &
        for url in $URLS; do reach "$url" & done
    fi
    wait
}

gpus() {
    section gpus
    # without the table of clocks, which is nine tenths of the text; its standard error, to which libraries write too, only if
    # there is no other output
    has nvidia-smi && {
        said=$(timeout 5 nvidia-smi -q -x 2>/dev/null)
        # 124: it timed out, and is not tried again
        [ "$?" = 124 ] || [ -n "$said" ] || said=$(timeout 2 nvidia-smi -q -x 2>&1)
        printf '%s\n' "$said" | sed '/<supported_clocks>/,/<\/supported_clocks>/d'
    }
    # a tool that was ended may leave an incomplete line, and the next section must begin on a new one
    echo
    section nvlink
    has nvidia-smi && timeout 2 nvidia-smi nvlink --status
    echo
}

# The value of "data-root" in daemon.json, read by a JSON parser; empty without a value or a valid file. Every Oracle Linux has
# platform-python, because dnf needs it; its version 3.6 is enough.
docker_root() {
    for python in /usr/libexec/platform-python python3; do
        has "$python" || continue
        timeout 3 "$python" -I -c '
import json, sys
with open(sys.argv[1], encoding="utf-8-sig") as file:
    found = json.load(file)
root = found.get("data-root") if isinstance(found, dict) else None
if isinstance(root, str) and root.startswith("/") and root.isprintable():
    print(root)
' "${DAEMON_JSON:-/etc/docker/daemon.json}"
        return 0
    done
}

space_of() {
    nearest "$1"
    printf '%s\t%s\n' "$1" "$(df --block-size=1 --output=size,avail,itotal,iavail,target "${place:-/}" | tail -n 1)"
}

holder() { printf '%s\t%s\t%s\n' "$1" "$2" "$(tr '\0\n\t' '   ' <"/proc/$2/cmdline" | sed 's#//[^/@ ]*@#//#g; s/\([A-Za-z_-]*\(pass\|token\|secret\|key\)[A-Za-z_-]*\)[= ][^ ]*/\1=…/gI' | cut -c 1-160)"; }

locks() {
    for file in /var/lib/dnf/rpmdb_lock.pid /var/cache/dnf/metadata_lock.pid /var/cache/dnf/download_lock.pid /run/yum.pid; do
        pid=$(head -c 20 "$file" | tr -cd 0-9)
        [ -n "$pid" ] && holder "$file" "$pid"
    done
    # rpm's own lock is a kernel lock, on a file that always exists
    inode=$(stat --format=%i /var/lib/rpm/.rpm.lock)
    [ -n "$inode" ] && for pid in $(awk -v inode="$inode" '$2 != "->" { n = split($6, part, ":"); if (part[n] == inode) print $5 }' /proc/locks); do
        holder /var/lib/rpm/.rpm.lock "$pid"
    done
}

kernel() {
    printf 'running\t%s\n' "$(uname -r)"
    next=$(timeout 2 grubby --default-kernel)
    next=${next##*/vmlinuz-}
    [ -n "$next" ] || return 0
    printf 'next\t%s\n' "$next"
    printf 'driver\t%s\n' "$(find "/lib/modules/$next" -name 'nvidia.ko*' | sed -n 1p)"
}

# Whether the running kernel's package, or Ksplice on it, fixes three local privilege escalations; and which of the affected
# modules are blocked. https://linux.oracle.com/cve/CVE-2026-31431.html, and those of 2026-43284 and -43500.
kernel_fixes() {
    running=$(uname -r)
    set +f
    package=
    for file in "/lib/modules/$running/vmlinuz" "/boot/vmlinuz-$running"; do
        [ -n "$package" ] || package=$(timeout 3 rpm -q --file "$file" | grep -v ' ')
    done
    set -f
    [ -z "$package" ] || echo read
    {
        [ -z "$package" ] || timeout 5 rpm -q --changelog "$package"
        has ksplice && timeout 3 ksplice kernel show
    } | grep -E -o 'CVE-2026-(31431|43284|43500)' | sort -u | sed 's/^/fixed\t/'
    grep -q 'initcall_blacklist=[^ ]*algif_aead_init' /proc/cmdline && printf 'blocked\talgif_aead\n'
    for name in $(timeout 2 modprobe --showconfig | sed -n 's,^install \([a-z0-9_]*\) /bin/\(false\|true\)$,\1,p'); do
        case $name in algif_aead | esp4 | esp6 | rxrpc) ;; *) continue ;; esac
        # a rule does not block a module that is built in, or already loaded
        grep -q "/${name}[.]ko" "/lib/modules/$running/modules.builtin" || grep -q "^$name " /proc/modules ||
            printf 'blocked\t%s\n' "$name"
    done
}

xids() {
    # without any kernel message, it is not known whether there were errors
    [ -n "$(timeout 2 journalctl --dmesg --boot --quiet --no-pager --lines=1)" ] || return 0
    echo read
    timeout 3 journalctl --dmesg --boot --quiet --no-pager --output=cat | grep -F 'NVRM: Xid' | tail -n 40
}

local_sections() {
    section os-release
    cat /etc/os-release && echo
    section architecture
    uname -m
    section kernel
    kernel
    section kernel-fixes
    kernel_fixes
    section xids
    xids
    section switches
    ls /proc/driver/nvidia-nvswitch/devices
    # on HGX B200 and B300 the driver lists none: they are managed through InfiniBand devices, whose product data shows it
    set +f
    timeout 4 grep --text --files-with-matches SW_MNG /sys/class/infiniband/*/device/vpd
    set -f
    section fabric-manager
    has nv-fabricmanager && timeout 2 nv-fabricmanager --version
    echo
    section units
    systemctl show --property=Id,LoadState,ActiveState,UnitFileState nvidia-fabricmanager.service firewalld.service
    section disks
    root=${DOCKER_ROOT:-$(docker_root)}
    printf 'docker\t%s\n' "${root:-/var/lib/docker}"
    for path in "$DATA_ROOT" "${root:-/var/lib/docker}" /tmp /; do space_of "$path"; done
    section memory
    sed -n 's/^\(MemTotal\|MemAvailable\|SwapTotal\): *\([0-9]*\) kB$/\1\t\2/p' /proc/meminfo
    section listening
    has ss && ss --no-header --listening --tcp --numeric --processes
    section locks
    locks
    section cloud-init
    if has cloud-init; then timeout 2 cloud-init status; else echo 'status: not installed'; fi
    section selinux
    if has getenforce; then getenforce; elif [ -d /sys/fs/selinux ]; then echo Disabled; fi
    section container-selinux
    has rpm && rpm -q --qf '%{VERSION}-%{RELEASE}\n' container-selinux | grep -v 'not installed'
    section temporary
    for path in /tmp /var/tmp /; do findmnt --noheadings --raw --output TARGET,OPTIONS --target "$path"; done
    section umask
    umask
    section ip-forward
    cat /proc/sys/net/ipv4/ip_forward
    section user
    id -u
    section proxies
    # only the file names: an address may contain a password
    set +f
    grep -l -i -s -E '^[^#]*proxy *=' /etc/dnf/dnf.conf /etc/environment /etc/profile.d/*.sh /etc/systemd/system/docker.service.d/*.conf
    set -f
    section synchronized
    # not timedatectl, which would start a service
    if has chronyc; then
        timeout 2 chronyc -n tracking | sed -n 's/^Leap status *: Not sync.*/no/p; t; s/^Leap status *: .*/yes/p'
    elif [ -e /run/systemd/timesync/synchronized ]; then
        echo yes
    fi
}

network </dev/null 2>/dev/null | {
    gpus </dev/null 2>/dev/null | {
        local_sections </dev/null 2>/dev/null
        cat
    }
    section network
    cat
    section clock
    date +%s.%N
    section end
}
exit 0
