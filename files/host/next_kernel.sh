# Which kernel boots next. Input: ONCE (a kernel that boots once: after a crash the default one boots again), DEFAULT (one that is the default
# from now on); one of the two. Without grubby there is nothing to choose.

PATH=$PATH:/usr/sbin:/sbin
command -v grubby >/dev/null 2>&1 || exit 0
if [ -n "$DEFAULT" ]; then
    [ ! -e "$DEFAULT" ] || grubby --set-default "$DEFAULT" >/dev/null || {
        echo "found that grubby does not take $DEFAULT, expected it to be the default kernel" >&2
        exit 1
    }
    exit 0
fi
image=/boot/vmlinuz-$ONCE
[ -e "$image" ] || {
    echo "found no $image, expected the packages to have brought it" >&2
    exit 1
}
index=$(grubby --info="$image" | sed -n 's/^index=//p' | head -n 1)
[ -n "$index" ] && grub2-reboot "$index" || {
    echo "found no entry of $image in the boot menu, expected one" >&2
    exit 1
}
