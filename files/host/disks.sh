# Functions of the probe and of the facts about disks; operations/plan/machine/disks.py and local_disks.py parse their output.
# They change nothing on a disk.

# The root file system, the devices under it, the partitions of its disk, and LVM's physical volumes.
root_disk() {
    source=$(findmnt --noheadings --output SOURCE / 2>/dev/null)
    source=${source%%\[*}
    disk=$(lsblk --noheadings --raw --inverse --output KNAME,TYPE "$source" 2>/dev/null |
        awk '$2 == "disk" || $2 == "loop" { print $1; exit }')
    # The kernel notices that a volume was enlarged only after a rescan, which must follow a read.
    # Without that file the disk is not a SCSI disk, such as NVMe, which reports the new size by itself.
    if [ -n "$disk" ] && [ -w "/sys/class/block/$disk/device/rescan" ]; then
        dd if="/dev/$disk" of=/dev/null iflag=direct bs=4096 count=1 2>/dev/null
        echo 1 2>/dev/null >"/sys/class/block/$disk/device/rescan"
    fi
    findmnt --bytes --noheadings --raw --output SOURCE,FSTYPE,SIZE / 2>/dev/null
    lsblk --bytes --noheadings --raw --inverse --output KNAME,TYPE,SIZE "$source" 2>/dev/null
    [ -z "$disk" ] || find "/sys/class/block/$disk/" -mindepth 2 -maxdepth 2 -name partition 2>/dev/null |
        while read -r file; do
            part=${file%/partition}
            echo "${part##*/} $(cat "$part/start") $(cat "$part/size") $(cat "$file")"
        done
    case $source in
        /dev/mapper/*)
            pvs --readonly --noheadings --nosuffix --units b --separator '|' \
                --options pv_name,vg_name,pv_size,pv_free,dev_size 2>/dev/null
            ;;
    esac
    return 0
}

# Where the data root is, or would be: DATA_ROOT.
data_root() {
    place=$DATA_ROOT
    while [ ! -e "$place" ] && [ ! -h "$place" ] && [ -n "$place" ]; do place=${place%/*}; done
    printf 'kind\t%s\n' "$(stat --dereference --format=%F -- "${place:-/}" 2>/dev/null)"
    printf 'resolved\t%s\n' "$(readlink --canonicalize-missing -- "$DATA_ROOT")"
    printf 'mount\t%s\n' "$(
        findmnt --noheadings --raw --output TARGET,SOURCE,FSTYPE,OPTIONS --target "${place:-/}" 2>/dev/null | tail -n 1
    )"
    # mode:user:path of each existing directory from / to it
    above=$DATA_ROOT levels=/
    while [ -n "$above" ]; do
        levels="$levels
$above"
        above=${above%/*}
    done
    printf 'owners\t%s\n' "$(printf '%s\n' "$levels" | sort | tr '\n' '\0' | xargs -0 sh -c 'find "$@" -maxdepth 0 -printf "%m:%U:%p\t"' sh 2>/dev/null)"
    printf 'entries\t%s\n' "$(find "$DATA_ROOT/" -mindepth 1 -maxdepth 1 -printf yes -quit 2>/dev/null)"
    [ ! -e "$DATA_ROOT/.tritonhost-data" ] || printf 'marked\tyes\n'
}

# wipefs prints nothing, and succeeds, if it can open a device but not read it: so read both ends first.
readable() {
    size=$(blockdev --getsize64 "$1" 2>/dev/null) && [ "${size:-0}" -ge 1048576 ] &&
        dd if="$1" of=/dev/null bs=1M count=1 iflag=direct 2>/dev/null &&
        dd if="$1" of=/dev/null bs=1M count=1 skip=$((size / 1048576 - 1)) iflag=direct 2>/dev/null
}

# A database on the device itself, plain dm-crypt and LUKS with a detached header have no signature. So 1 MiB is read at ten
# places, from the device's beginning to its end, and each must contain zeros. `readable` has set the size.
zeros() {
    place=0
    while [ "$place" -le 9 ]; do
        # counted, so that an unreadable place does not pass as zeros
        [ "$(dd if="$1" bs=1M count=1 skip=$(((size / 1048576 - 1) * place / 9)) iflag=direct 2>/dev/null |
            LC_ALL=C tr -d '\001-\377' | wc -c)" -eq 1048576 ] || return 1
        place=$((place + 1))
    done
}

# How an NVMe disk is attached: pcie, or over a network (tcp, rdma, fc), which is a disk of another host. Its controllers tell
# it; empty if the kernel does not.
transport() {
    find -L "/sys/block/$1/device/" -maxdepth 2 -name transport -exec cat {} + 2>/dev/null | sort -u | paste -s -d ,
}

# Every block device, then the content of those that may be local disks or arrays of them.
local_disks() {
    # without NAME, lsblk does not print a tree
    lsblk --json --bytes --output NAME,KNAME,TYPE,SIZE,MOUNTPOINT 2>/dev/null
    lsblk --noheadings --raw --output KNAME,TYPE 2>/dev/null | sort -u |
        while IFS=' ' read -r name type; do
            case $name,$type in
                nvme*n1,disk | md*,raid* | md*,md) ;;
                *) continue ;;
            esac
            case $name in nvme*) printf 'transport\t%s\t%s\n' "$name" "$(transport "$name")" ;; esac
            # a device that cannot be read gets no line "read", and does not count as empty
            readable "/dev/$name" && found=$(wipefs --parsable "/dev/$name" 2>/dev/null) || continue
            printf 'read\t%s\n' "$name"
            printf '%s\n' "$found" | sed -n "s/^0x/signature\t$name\t0x/p"
            case $name,$found in
                nvme*,) zeros "/dev/$name" || printf 'written\t%s\n' "$name" ;;
            esac
        done
    # Not from lsblk alone: util-linux 2.32 omits devices of size 0, such as an array that was not started.
    for holder in $(find /sys/class/block/ -maxdepth 1 -name 'nvme*n1' -exec find {}/holders/ -mindepth 1 -maxdepth 1 \; 2>/dev/null); do
        disk=${holder%/holders/*}
        printf 'holder\t%s\t%s\n' "${disk##*/}" "${holder##*/}"
    done
    sed 's/^/unfinished\t/' /etc/mdadm.conf.d/tritonhost.unfinished 2>/dev/null
    # from the unit's own text: for an active mount, systemctl shows the kernel's name of the device
    sed -n 's/^What=/unit\tWhat=/p' "/etc/systemd/system/$MOUNT_UNIT" 2>/dev/null
    systemctl show --property=LoadState,UnitFileState,ActiveState,NeedDaemonReload "$MOUNT_UNIT" 2>/dev/null |
        sed 's/^/unit\t/'
    sed 's/^/array\t/' /etc/mdadm.conf.d/tritonhost.conf 2>/dev/null
    return 0
}
