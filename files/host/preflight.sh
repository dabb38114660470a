# Reads what the preflight asks of a host, in one round trip of at most about 8 s, and changes nothing.
#
# Input, as shell variables set in front of this text: DATA_ROOT, METADATA (the address of OCI's instance metadata), and the
# lists NAMES (to resolve) and URLS (to reach), one word each line. Output: sections, as those of probe.sh, read by
# operations/facts/host_health.py. Everything that may wait has a limit of its own: what asks the network and what asks
# the GPUs runs beside the rest, and its output waits in a pipe until its section comes.

LC_ALL=C
export LC_ALL
PATH=$PATH:/usr/sbin:/sbin

section() { printf '\036%s\n' "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }
one_line() { printf '%s' "$1" | tr '\n\t' '  '; }
IFS='
'
set -f

# Each answer is one short line, which no other one is written into.
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
    # without the table of clocks, which is nine tenths of the text
    has nvidia-smi && timeout 5 nvidia-smi -q -x 2>&1 | sed '/<supported_clocks>/,/<\/supported_clocks>/d'
    # a tool that was ended leaves a line without its end, and the next section must begin on one of its own
    echo
    section nvlink
    has nvidia-smi && timeout 2 nvidia-smi nvlink --status 2>&1
    echo
}

# of the nearest directory that is there already
space_of() {
    place=$1
    while [ ! -e "$place" ] && [ -n "$place" ]; do place=${place%/*}; done
    printf '%s\t%s\n' "$1" "$(df --block-size=1 --output=size,avail,itotal,iavail,target "${place:-/}" | tail -n 1)"
}

holder() { printf '%s\t%s\t%s\n' "$1" "$2" "$(tr '\0\n\t' '   ' <"/proc/$2/cmdline")"; }

locks() {
    for file in /var/lib/dnf/rpmdb_lock.pid /var/cache/dnf/metadata_lock.pid /var/cache/dnf/download_lock.pid /run/yum.pid; do
        pid=$(head -c 20 "$file" | tr -cd 0-9)
        [ -n "$pid" ] && holder "$file" "$pid"
    done
    # rpm's own lock is one of the kernel's, on a file that stays
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

xids() {
    # a host that shows none of its kernel's messages cannot say that there are no errors among them
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
    section xids
    xids
    section switches
    ls /proc/driver/nvidia-nvswitch/devices
    section fabric-manager
    has nv-fabricmanager && timeout 2 nv-fabricmanager --version
    echo
    section units
    systemctl show --property=Id,LoadState,ActiveState,UnitFileState nvidia-fabricmanager.service firewalld.service
    section disks
    docker_root=${DOCKER_ROOT:-$(sed -n 's/.*"data-root": *"\(\/[^"]*\)".*/\1/p' /etc/docker/daemon.json | sed -n 1p)}
    printf 'docker\t%s\n' "${docker_root:-/var/lib/docker}"
    for path in "$DATA_ROOT" "${docker_root:-/var/lib/docker}" /tmp /; do space_of "$path"; done
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
    # their names only: an address may hold a password
    set +f
    grep -l -i -s -E '^[^#]*proxy *=' /etc/dnf/dnf.conf /etc/environment /etc/profile.d/*.sh /etc/systemd/system/docker.service.d/*.conf
    set -f
    section synchronized
    # not timedatectl, which starts a service to be told
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
