# Makes the host's local disks hold the data root: STEPS (one a line: create, assemble, file system, mount, mark), LEVEL
# (raid0, raid10, or empty for one disk), DISKS (the kernel's names, one a line), DEVICE (the kernel's name of what holds the
# file system, where there is one already), LABEL, ARRAY, ARRAY_FILE, DATA_ROOT, SENTINEL, UNIT, UNIT_TEXT. Nothing that carries
# a signature is ever overwritten: it is looked at again right before, and neither mdadm nor mkfs is told to force anything.

PATH=$PATH:/usr/sbin:/sbin
IFS='
'
set -f
refuse() {
    echo "local disks: $1" >&2
    exit 65
}
# wipefs says nothing, and succeeds, where it may open a device and cannot read it: both ends have to be read first.
readable() {
    size=$(blockdev --getsize64 "$1" 2>/dev/null) && [ "${size:-0}" -ge 1048576 ] &&
        dd if="$1" of=/dev/null bs=1M count=1 iflag=direct 2>/dev/null &&
        dd if="$1" of=/dev/null bs=1M count=1 skip=$((size / 1048576 - 1)) iflag=direct 2>/dev/null
}
blank() {
    readable "$1" || refuse "found $1 that cannot be read, expected a disk without faults; see: dmesg"
    found=$(wipefs --parsable "$1") || refuse "found nothing that wipefs could read on $1, expected its signatures"
    [ -z "$found" ]
}

count=$(printf '%s\n' "$DISKS" | wc -l)
paths=$(printf '%s\n' "$DISKS" | sed 's#^#/dev/#')
device=${DEVICE:+/dev/$DEVICE}
[ -n "$LEVEL" ] || device=$paths

for step in $STEPS; do
    case $step in
        create)
            for path in $paths; do blank "$path" || refuse "found a signature on $path, expected none; see: wipefs $path"; done
            bitmap=
            [ "$LEVEL" = raid0 ] || bitmap=--bitmap=internal
            # "any": known under its name on whatever host, so that it never becomes md127. It asks before it takes a
            # device that holds something, and is answered by the end of its input.
            mdadm --create "$ARRAY" --name="$LABEL" --homehost=any --metadata=1.2 --level="${LEVEL#raid}" \
                $bitmap --raid-devices="$count" $paths </dev/null || refuse "mdadm could not make $ARRAY of $(echo $paths)"
            device=$ARRAY
            # Disks whose own signatures were wiped, because one of them was lost, show what is left of the old file system
            # again where the new array begins.
            wipefs --quiet --all "$device" || refuse "wipefs --all failed on $device, which was just made"
            ;;
        assemble)
            # one that the kernel began at boot and could not start is in the way
            for name in $(lsblk --noheadings --raw --output KNAME,TYPE $paths | awk '$1 ~ /^md/ { print $1 }' | sort -u); do
                mdadm --stop "/dev/$name"
            done
            mdadm --assemble "$ARRAY" $paths ||
                refuse "mdadm could not assemble $ARRAY of $(echo $paths), expected all of its disks; see: mdadm --examine; where one is lost, wipefs --all the others, and everything is made anew"
            device=$ARRAY
            ;;
        file*)
            if blank "$device"; then
                mkfs.xfs -L "$LABEL" "$device" || refuse "mkfs.xfs failed on $device; see the lines above"
            fi
            ;;
        mount)
            [ "$(blkid -p -s TYPE -o value "$device") $(blkid -p -s LABEL -o value "$device")" = "xfs $LABEL" ] ||
                refuse "found another file system on $device, expected xfs $LABEL"
            uuid=$(blkid -p -s UUID -o value "$device")
            if [ -n "$LEVEL" ]; then
                mkdir -p "${ARRAY_FILE%/*}"
                identity=$(mdadm --detail --export "$device" | sed -n 's/^MD_UUID=//p')
                [ -n "$identity" ] || refuse "found no identity of $device, expected MD_UUID of mdadm --detail"
                printf 'ARRAY %s UUID=%s\n' "$ARRAY" "$identity" >"$ARRAY_FILE.new" && mv -T "$ARRAY_FILE.new" "$ARRAY_FILE" || exit 1
            fi
            mkdir -p "$DATA_ROOT" || exit 1
            if ! mountpoint -q "$DATA_ROOT" && [ -n "$(ls -A "$DATA_ROOT")" ]; then
                refuse "found files in $DATA_ROOT, expected an empty directory: the disks would hide them"
            fi
            file=/etc/systemd/system/$UNIT
            printf '%s' "$UNIT_TEXT" | sed "s/@UUID@/$uuid/" >"$file.new" || exit 1
            if cmp -s "$file.new" "$file"; then rm -f "$file.new"; else mv -T "$file.new" "$file" && systemctl daemon-reload; fi
            systemctl reset-failed "$UNIT" 2>/dev/null
            systemctl enable --quiet "$UNIT" && systemctl start "$UNIT" ||
                refuse "could not mount $device at $DATA_ROOT; see: journalctl --unit '$UNIT'"
            [ "$(findmnt --noheadings --output UUID --mountpoint "$DATA_ROOT" | tail -n 1)" = "$uuid" ] ||
                refuse "found another file system at $DATA_ROOT, expected that of $device"
            chmod 755 "$DATA_ROOT"
            if command -v restorecon >/dev/null; then restorecon "$DATA_ROOT"; fi
            ;;
        mark)
            mountpoint -q "$DATA_ROOT" || refuse "found nothing mounted at $DATA_ROOT, expected the local disks"
            [ -e "$DATA_ROOT/$SENTINEL" ] || printf 'the local disks of tritonhost\n' >"$DATA_ROOT/$SENTINEL" || exit 1
            ;;
    esac
done
