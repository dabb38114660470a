# Grows the root file system to its disk; input: WANTED_BYTES, what it must have at least afterwards.

PATH=$PATH:/usr/sbin:/sbin
source=$(findmnt --noheadings --output SOURCE /)
type=$(findmnt --noheadings --output FSTYPE /)
size() { findmnt --bytes --noheadings --output SIZE / | tr -d ' '; }
grown() { [ "$(size)" -ge "$WANTED_BYTES" ]; }

# Its exit code says nothing, so it is not asked for.
if [ -x /usr/libexec/oci-growfs ]; then /usr/libexec/oci-growfs -y || :; fi
grown && exit 0

# What it may have left half done: partition, physical volume, logical volume, file system, each from its own state.
case $source in
    /dev/mapper/*)
        group=$(lvs --noheadings --options vg_name "$source" | tr -d ' ')
        volume=$(pvs --noheadings --options pv_name,vg_name | awk -v g="$group" '$2 == g { print $1 }')
        [ "$(printf '%s\n' "$volume" | wc -l)" = 1 ] || {
            echo "root file system: volume group $group has several physical volumes, expected one; extend it by hand" >&2
            exit 65
        }
        partition=$volume
        ;;
    *) partition=$source ;;
esac
disk=$(lsblk --noheadings --raw --output PKNAME "$partition" | head -n 1)
number=$(cat "/sys/class/block/${partition##*/}/partition" 2>/dev/null)
if [ -n "$disk" ] && [ -n "$number" ]; then growpart "/dev/$disk" "$number" || [ $? = 1 ] || exit 1; fi
if [ "$partition" != "$source" ]; then
    pvresize "$partition" && lvextend --extents +100%FREE "$source"
fi
case $type in
    xfs) xfs_growfs / ;;
    ext4) resize2fs "$source" ;;
    *)
        echo "root file system: $type on $source, expected xfs or ext4; grow it by hand" >&2
        exit 65
        ;;
esac
grown && exit 0
echo "root file system: $(size) bytes on $source after growing, expected $WANTED_BYTES; see lsblk" >&2
exit 1
