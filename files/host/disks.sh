# Functions of the probe and of the facts that look at disks, as operations/plan/disks.py and local_disks.py read them.
# They change nothing on a disk.

# The root file system, the devices under it, the partitions of its disk, and LVM's physical volumes.
root_disk() {
    source=$(findmnt --noheadings --output SOURCE / 2>/dev/null)
    source=${source%%\[*}
    disk=$(lsblk --noheadings --raw --inverse --output KNAME,TYPE "$source" 2>/dev/null |
        awk '$2 == "disk" || $2 == "loop" { print $1; exit }')
    # The kernel learns that a volume was enlarged under it when it is told to ask, after a read that gets the news.
    # No file there: the disk is none of SCSI's, such as NVMe, whose kernel is told by the device.
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
    printf 'entries\t%s\n' "$(find "$DATA_ROOT/" -mindepth 1 -maxdepth 1 -printf yes -quit 2>/dev/null)"
    [ ! -e "$DATA_ROOT/.tritonhost-data" ] || printf 'marked\tyes\n'
}

# wipefs says nothing, and succeeds, where it may open a device and cannot read it: both ends have to be read first.
readable() {
    size=$(blockdev --getsize64 "$1" 2>/dev/null) && [ "${size:-0}" -ge 1048576 ] &&
        dd if="$1" of=/dev/null bs=1M count=1 iflag=direct 2>/dev/null &&
        dd if="$1" of=/dev/null bs=1M count=1 skip=$((size / 1048576 - 1)) iflag=direct 2>/dev/null
}

# Every block device, then what is written on those that may be local disks or arrays of them.
local_disks() {
    # without NAME, lsblk makes no tree
    lsblk --json --bytes --output NAME,KNAME,TYPE,SIZE,TRAN,MOUNTPOINT 2>/dev/null
    lsblk --noheadings --raw --output KNAME,TYPE 2>/dev/null | sort -u |
        while IFS=' ' read -r name type; do
            case $name,$type in
                nvme*n1,disk | md*,raid* | md*,md) ;;
                *) continue ;;
            esac
            # a device that cannot be read has no line "read", and counts for no empty one
            readable "/dev/$name" && found=$(wipefs --parsable "/dev/$name" 2>/dev/null) && printf 'read\t%s\n' "$name"
            printf '%s\n' "$found" | sed -n "s/^0x/signature\t$name\t0x/p"
        done
    # Not of lsblk alone: that of util-linux 2.32 leaves out devices of size 0, such as an array that was not started.
    for holder in $(find /sys/class/block/ -maxdepth 1 -name 'nvme*n1' -exec find {}/holders/ -mindepth 1 -maxdepth 1 \; 2>/dev/null); do
        disk=${holder%/holders/*}
        printf 'holder\t%s\t%s\n' "${disk##*/}" "${holder##*/}"
    done
    sed 's/^/unfinished\t/' /etc/mdadm.conf.d/tritonhost.unfinished 2>/dev/null
    # what the unit's own text names: of a mount that is there, systemctl shows the kernel's name of the device
    sed -n 's/^What=/unit\tWhat=/p' "/etc/systemd/system/$MOUNT_UNIT" 2>/dev/null
    systemctl show --property=LoadState,UnitFileState,ActiveState,NeedDaemonReload "$MOUNT_UNIT" 2>/dev/null |
        sed 's/^/unit\t/'
    sed 's/^/array\t/' /etc/mdadm.conf.d/tritonhost.conf 2>/dev/null
    return 0
}
