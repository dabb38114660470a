#!/bin/bash
# Makes the disk of a whole machine, without a boot: prepare.sh TREE FOLDER, as root. TREE has the configured packages, and is changed.
# FOLDER gets disk.img: GPT, LVM as in Oracle's images (ocivolume with root and oled), xfs, and the labels of SELinux on every file.
# All of it runs on this machine: packages are configured, the policy is built and files are labelled here, not under QEMU's translator.
set -euo pipefail
tree=$1 folder=$2
DISK=6G      # of which partition 3 takes 5 GiB: the root file system can be grown
PARTITION=5G
OLED=320M # mkfs.xfs makes nothing smaller than 300 MiB
loops=() mounted=()
cleanup() {
    for point in "${mounted[@]}"; do umount "$point" 2>/dev/null || umount -l "$point" || :; done
    for loop in "${loops[@]}"; do losetup -d "$loop" 2>/dev/null || :; done
}
trap cleanup EXIT
enter() { mount "$@"; mounted=("${@: -1}" "${mounted[@]}"); }
leave() {
    for point in "${mounted[@]}"; do umount "$point"; done
    mounted=()
}

# the policy's module, built without a kernel that has SELinux
enter -t proc proc "$tree/proc"
chroot "$tree" semodule --noreload --install=/root/container.cil
leave

# This kernel needs no device mapper: LVM's records are written, and nothing is activated.
disk=$folder/disk.img
truncate -s "$DISK" "$disk"
sgdisk --new=1:0:+10M --typecode=1:ef00 --new=2:0:+50M "--new=3:0:+$PARTITION" --typecode=3:8e00 "$disk" >/dev/null
read -r first last < <(sgdisk --info=3 "$disk" | awk '/^First sector/ { f = $3 } /^Last sector/ { print f, $3 }')
partition=$(losetup --find --show --offset $((first * 512)) --sizelimit $(((last - first + 1) * 512)) "$disk")
loops+=("$partition")
enter --bind /dev "$tree/dev"
enter -t proc proc "$tree/proc"
enter --bind /sys "$tree/sys"
enter -t tmpfs run "$tree/run"
config="devices { use_devicesfile=0 filter=[ \"a|^$partition\$|\", \"r|.*|\" ] } activation { udev_sync=0 udev_rules=0 } backup { backup=0 archive=0 }"
lvm() { chroot "$tree" env LVM_SUPPRESS_FD_WARNINGS=1 lvm "$@" --driverloaded n --config "$config"; }
create() { lvm lvcreate --quiet --quiet --yes --activate n --zero n --wipesignatures n "$@" ocivolume; }
lvm pvcreate --quiet --quiet "$partition"
lvm vgcreate --quiet --quiet ocivolume "$partition"
create --size "$OLED" --name oled
create --extents 100%FREE --name root
start=$(lvm pvs --noheadings --nosuffix --units b --options pe_start "$partition" | tr -d ' ')
extent=$(lvm vgs --noheadings --nosuffix --units b --options vg_extent_size ocivolume | tr -d ' ')
span() { # offset and bytes of a volume, in the disk; LVM names its extents as 80-1279
    local range
    range=$(lvm lvs --noheadings --options seg_pe_ranges "ocivolume/$1" | sed 's/.*://; s/ //g')
    echo $((first * 512 + start + ${range%-*} * extent)) $(((${range#*-} - ${range%-*} + 1) * extent))
}
root=$(span root) oled=$(span oled)
leave
losetup -d "$partition"

# the file systems, at the volumes' places in the file
target=$folder/mounted
mkdir -p "$target"
for name in root oled; do
    read -r offset size <<<"${!name}"
    loop=$(losetup --find --show --offset "$offset" --sizelimit "$size" "$disk")
    loops+=("$loop")
    mkfs.xfs -q "$loop"
    if [ "$name" = root ]; then
        enter "$loop" "$target"
        cp -a "$tree/." "$target/"
        mkdir -p "$target/var/oled"
    else
        enter "$loop" "$target/var/oled"
    fi
done
# -m: this kernel knows of no labels, and the file system keeps them; setfiles names files by /proc/self/fd
enter -t proc proc "$target/proc"
chroot "$target" setfiles -m -F -e /proc /etc/selinux/default/contexts/files/file_contexts / /var/oled >/dev/null 2>"$folder/labels.log"
leave
rmdir "$target"
