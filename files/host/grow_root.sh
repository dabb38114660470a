# Grows the layers under the root file system, then the file system itself, each from its own state: STEPS (in their order,
# one per line, as in operations/plan/machine/disks.py), DISK and NUMBER (of the partition), VOLUME, SOURCE, TYPE.

PATH=$PATH:/usr/sbin:/sbin
IFS='
'
refuse() {
    echo "root file system: $1" >&2
    exit 65
}

# before the first change, so that a missing program does not leave the work half done
for step in $STEPS; do
    case $step,$TYPE in
        partition,*) tool=growpart package=cloud-utils-growpart ;;
        physical*) tool=pvresize package=lvm2 ;;
        logical*) tool=lvextend package=lvm2 ;;
        *,xfs) tool=xfs_growfs package=xfsprogs ;;
        *,ext4) tool=resize2fs package=e2fsprogs ;;
        *) refuse "found $TYPE on $SOURCE, expected xfs or ext4; grow it by hand, or set grow_root_file_system = False" ;;
    esac
    command -v "$tool" >/dev/null ||
        refuse "found no $tool, expected it to grow the $step; run: dnf install $package; then run again"
done

# Oracle's ocid also grows the disk at boot (auto_resize of /etc/oci-utils.conf.d): two programs would break the partition
# table. Its /usr/libexec/oci-growfs is a shell script that execs python3 with …/oci_utils/impl/oci_growfs_main.py, which ocid
# also starts directly. The pattern is anchored, because this script's own text is in the list of processes as well.
others() { pgrep -x growpart || pgrep -o -f '^[^ ]*(python[0-9.]*|bash|sh) (-[^ c]* )*[^ ]*oci[-_]growfs'; }
waited=0
while other=$(others | head -n 1) && [ -n "$other" ]; do
    [ "$waited" -lt "${GROWFS_SECONDS:-120}" ] ||
        refuse "found process $other, which grows it, still at work after $waited s; expected it to end; look at it, and run again"
    waited=$((waited + 2))
    sleep 2
done

# Read the layers under / again, now that no other program grows them: a kernel's name may belong to another device by now.
# As root_disk in disks.sh does it.
source=$(findmnt --noheadings --output SOURCE / 2>/dev/null)
source=${source%%\[*}
below=$(lsblk --noheadings --raw --inverse --output KNAME,TYPE "$source" 2>/dev/null)
disk=$(printf '%s\n' "$below" | awk '$2 == "disk" || $2 == "loop" { print $1; exit }')
part=$(printf '%s\n' "$below" | awk '$2 == "part" { print $1; exit }')
number=${part:+$(cat "/sys/class/block/$part/partition" 2>/dev/null)}
under="$(findmnt --noheadings --output FSTYPE / 2>/dev/null) on $source${VOLUME:+ in /dev/${part:-$disk}} on partition ${number:-none} of /dev/$disk"
wanted="$TYPE on $SOURCE${VOLUME:+ in $VOLUME} on partition ${NUMBER:-none} of /dev/$DISK"
[ "$under" = "$wanted" ] ||
    refuse "found $under under /, expected $wanted, as it was a moment ago; see lsblk and findmnt /, and run again: nothing was changed"

for step in $STEPS; do
    case $step in
        partition) set -- growpart "/dev/$DISK" "$NUMBER" ;;
        physical*) set -- pvresize "$VOLUME" ;;
        logical*) set -- lvextend --extents +100%FREE "$SOURCE" ;;
        *) [ "$TYPE" = xfs ] && set -- xfs_growfs / || set -- resize2fs "$SOURCE" ;;
    esac
    "$@"
    code=$?
    # growpart's 1: nothing to do, because another program has done it by now
    case $1,$code in
        *,0 | growpart,1) ;;
        *) refuse "found exit code $code of $(IFS=' '; echo "$*"), expected the $step to grow; see the lines above, fix that, and run again: what is done stays" ;;
    esac
done
