# Grows what is under the root file system, then the file system itself, each from its own state: STEPS (in their order,
# one a line, as operations/plan/disks.py has them), DISK and NUMBER (of the partition), VOLUME, SOURCE, TYPE.

PATH=$PATH:/usr/sbin:/sbin
IFS='
'
refuse() {
    echo "root file system: $1" >&2
    exit 65
}

# before the first change, so that nothing is left half done for want of a program
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

# Oracle's ocid grows the disk at boot, too (auto_resize of /etc/oci-utils.conf.d): two at one table would break it.
# Anchored, because this script's own text is in the table of processes as well.
others() { pgrep -x growpart || pgrep -o -f '^[^ ]*(python[0-9.]*|bash|sh) [^ ]*oci-growfs'; }
waited=0
while other=$(others | head -n 1) && [ -n "$other" ]; do
    [ "$waited" -lt "${GROWFS_SECONDS:-120}" ] ||
        refuse "found process $other, which grows it, still at work after $waited s; expected it to end; look at it, and run again"
    waited=$((waited + 2))
    sleep 2
done

for step in $STEPS; do
    case $step in
        partition) set -- growpart "/dev/$DISK" "$NUMBER" ;;
        physical*) set -- pvresize "$VOLUME" ;;
        logical*) set -- lvextend --extents +100%FREE "$SOURCE" ;;
        *) [ "$TYPE" = xfs ] && set -- xfs_growfs / || set -- resize2fs "$SOURCE" ;;
    esac
    "$@"
    code=$?
    # growpart's 1: nothing to do, because another has done it since
    case $1,$code in
        *,0 | growpart,1) ;;
        *) refuse "found exit code $code of $(IFS=' '; echo "$*"), expected the $step to grow; see the lines above, mend that, and run again: what is done stays" ;;
    esac
done
