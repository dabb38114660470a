# Sets up the host's local disks for the data root, with the functions of disks.sh before this text. Input:
#   STEPS       one per line: clear, create, assemble, file system, mount, mark
#   LEVEL       raid0, raid10, or empty for one disk
#   DISKS       the kernel's names, one per line
#   DEVICE      the kernel's name of the device with the file system, if there is one already
#   LABEL, ARRAY, ARRAY_FILE, UNFINISHED
#   ERASE       1: disks without a signature may have content
#   DATA_ROOT, SENTINEL, UNIT, UNIT_TEXT
# A device with a signature is never overwritten, except what UNFINISHED says was begun here. Each device is read again right
# before its change, and neither mdadm nor mkfs gets an option to force anything.

PATH=$PATH:/usr/sbin:/sbin
IFS='
'
set -f
refuse() {
    echo "local disks: $1" >&2
    exit 65
}
blank() {
    readable "$1" || refuse "found $1 that cannot be read, expected a disk without faults; see dmesg, and have it replaced"
    found=$(wipefs --parsable "$1") ||
        refuse "found nothing that wipefs could read on $1, expected its signatures; see dmesg and the lines above"
    [ -z "$found" ]
}
# Before the first write to a disk that is not known to be ours.
nobodys() {
    blank "$1" || refuse "found a signature on $1, expected none; see wipefs $1, save what it is, and run again"
    by=$(transport "${1##*/}")
    case $by in
        '' | pcie) ;;
        *) refuse "found $1, which is reached over $by, expected a disk of this host; its name was another's; see lsblk, and run again" ;;
    esac
    # a disk that this tool has begun may have content from that
    [ "$ERASE" = 1 ] || [ -n "$cleared" ] || zeros "$1" ||
        refuse "found something other than zeros on $1, which carries no signature, expected an empty disk; save what it is, and run blkdiscard $1, or set local_disks_erase = True"
}
# the devices on the disks, from the kernel: lsblk of util-linux 2.32 omits an array that could not be started
holders() {
    for disk in $DISKS; do ls "/sys/class/block/$disk/holders" 2>/dev/null; done | sort -u
}
# The UUID is on the root file system before it is on a disk, and is removed from there before the data root is mounted, each
# time with a sync. So a run that finds it there knows that a device with this UUID was never used.
begin() {
    uuid=$(cat /proc/sys/kernel/random/uuid) && mkdir -p "${UNFINISHED%/*}" && printf '%s\n' "$uuid" >"$UNFINISHED.new" &&
        sync "$UNFINISHED.new" && mv -T "$UNFINISHED.new" "$UNFINISHED" && sync "${UNFINISHED%/*}" ||
        refuse "found $UNFINISHED not writable, expected to note there what is begun; make room on /, and run again"
}
finish() {
    [ -e "$UNFINISHED" ] || return 0
    rm "$UNFINISHED" && sync "${UNFINISHED%/*}" ||
        refuse "found $UNFINISHED, which could not be removed, expected none now; see the lines above, and run again"
}

count=$(printf '%s\n' "$DISKS" | wc -l)
paths=$(printf '%s\n' "$DISKS" | sed 's#^#/dev/#')
device=${DEVICE:+/dev/$DEVICE}
[ -n "$LEVEL" ] || device=$paths
cleared=
# DEVICE is the array's name from an earlier probe; it may belong to another device by now
if [ -n "$LEVEL" ] && [ -n "$DEVICE" ] && [ "$(holders)" != "$DEVICE" ]; then
    refuse "found $(echo $(holders)) on $(echo $paths), expected $DEVICE alone, as it was a moment ago; see lsblk, and run again"
fi

for step in $STEPS; do
    case $step in
        clear)
            uuid=$(tr -d - <"$UNFINISHED") && [ -n "$uuid" ] ||
                refuse "found nothing in $UNFINISHED, expected the UUID of what was begun; run again, which looks again"
            [ -n "$LEVEL" ] && kind=linux_raid_member || kind=xfs
            # all of them before the first change
            for path in $paths; do
                blank "$path" && continue
                for line in $(printf '%s\n' "$found" | sed -n '/^0x/{s/-//g;p;}'); do
                    case $line in
                        0x*,"$uuid",*,"$kind") ;;
                        *) refuse "found a signature on $path that no run of this tool began, expected none but $uuid; see wipefs $path, save what it is, and run again" ;;
                    esac
                done
            done
            # fails if it is in use
            for name in $(holders); do
                mdadm --stop "/dev/$name" ||
                    refuse "found /dev/$name in use on $(echo $paths), expected an array that nobody uses; unmount it, and run again"
            done
            for path in $paths; do
                wipefs --quiet --all "$path" ||
                    refuse "found exit code $? of wipefs --all $path, expected 0; see the lines above, and run again"
            done
            cleared=yes
            ;;
        create)
            for path in $paths; do nobodys "$path"; done
            used=$(holders)
            [ -z "$used" ] || refuse "found $(echo $used) on $(echo $paths), expected disks that nothing is on; see lsblk, and run again"
            begin
            bitmap=
            [ "$LEVEL" = raid0 ] || bitmap=--bitmap=internal
            # "any": it keeps its name on every host, so that it never becomes md127. mdadm asks before it takes a device
            # with content; its standard input is empty, so that the answer is no.
            mdadm --create "$ARRAY" --name="$LABEL" --homehost=any --metadata=1.2 --uuid="$uuid" \
                --level="${LEVEL#raid}" $bitmap --raid-devices="$count" $paths </dev/null ||
                refuse "found exit code $? of mdadm --create on $(echo $paths), expected 0 and $ARRAY; see the lines above and dmesg, and run again"
            device=$ARRAY
            # If the disks' own signatures were wiped because one disk was lost, the old file system's signature shows again
            # at the start of the new array.
            wipefs --quiet --all "$device" ||
                refuse "found exit code $? of wipefs --all $device, which was just made, expected 0; see the lines above, and run again"
            ;;
        assemble)
            # an array that the kernel began at boot and could not start would be in the way
            for name in $(holders | grep '^md'); do
                mdadm --stop "/dev/$name"
            done
            mdadm --assemble "$ARRAY" $paths ||
                refuse "found exit code $? of mdadm --assemble on $(echo $paths), expected $ARRAY of all its disks; see mdadm --examine; if one is lost, wipefs --all and blkdiscard the others, and run again: everything is made again"
            device=$ARRAY
            ;;
        file*)
            if blank "$device"; then
                given=
                # a single disk has no other UUID than that of its file system
                [ -n "$LEVEL" ] || { nobodys "$device" && begin && given="-muuid=$uuid"; }
                mkfs.xfs -L "$LABEL" $given "$device" && sync "$device" ||
                    refuse "found exit code $? of mkfs.xfs on $device, expected 0; see the lines above and dmesg, and run again"
                finish
            fi
            ;;
        mount)
            [ "$(blkid -p -s TYPE -o value "$device") $(blkid -p -s LABEL -o value "$device")" = "xfs $LABEL" ] ||
                refuse "found another file system on $device, expected xfs $LABEL; see blkid -p $device, and save what it is"
            finish
            uuid=$(blkid -p -s UUID -o value "$device")
            if [ -n "$LEVEL" ]; then
                mkdir -p "${ARRAY_FILE%/*}"
                identity=$(mdadm --detail --export "$device" | sed -n 's/^MD_UUID=//p')
                [ -n "$identity" ] || refuse "found no identity of $device, expected MD_UUID; see mdadm --detail --export $device, and run again"
                printf 'ARRAY %s UUID=%s\n' "$ARRAY" "$identity" >"$ARRAY_FILE.new" && mv -T "$ARRAY_FILE.new" "$ARRAY_FILE" ||
                    refuse "found $ARRAY_FILE not writable, expected to name the array there; make room on /, and run again"
            fi
            mkdir -p "$DATA_ROOT" ||
                refuse "found no directory $DATA_ROOT, expected to make it; see the lines above, and run again"
            if ! mountpoint -q "$DATA_ROOT" && [ -n "$(ls -A "$DATA_ROOT")" ]; then
                refuse "found files in $DATA_ROOT, expected an empty directory: the disks would hide them; move or remove them, and run again"
            fi
            file=/etc/systemd/system/$UNIT
            printf '%s' "$UNIT_TEXT" | sed "s/@UUID@/$uuid/" >"$file.new" ||
                refuse "found $file not writable, expected the unit of the mount; make room on /, and run again"
            if cmp -s "$file.new" "$file"; then rm -f "$file.new"; else mv -T "$file.new" "$file" && systemctl daemon-reload; fi
            systemctl reset-failed "$UNIT" 2>/dev/null
            systemctl enable --quiet "$UNIT" && systemctl start "$UNIT" ||
                refuse "found $device not mounted, expected it at $DATA_ROOT; see journalctl --unit '$UNIT', and run again"
            [ "$(findmnt --noheadings --output UUID --mountpoint "$DATA_ROOT" | tail -n 1)" = "$uuid" ] ||
                refuse "found another file system at $DATA_ROOT, expected that of $device; see findmnt $DATA_ROOT, unmount it, and run again"
            chmod 755 "$DATA_ROOT"
            if command -v restorecon >/dev/null; then restorecon "$DATA_ROOT"; fi
            ;;
        mark)
            mountpoint -q "$DATA_ROOT" || refuse "found nothing mounted at $DATA_ROOT, expected the local disks; see systemctl status '$UNIT', and run again"
            [ -e "$DATA_ROOT/$SENTINEL" ] || printf 'the local disks of tritonhost\n' >"$DATA_ROOT/$SENTINEL" ||
                refuse "found $DATA_ROOT/$SENTINEL not writable, expected to mark the mount with it; see dmesg, and run again"
            ;;
    esac
done
