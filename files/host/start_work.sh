# Starts a transient unit unless it runs already, and prints the journal's cursor of that moment.
#
# Input, as shell variables: UNIT; on standard input a base64 tar archive with the unit's work.sh and its other
# files. They are put on tmpfs, readable by root alone, and are gone when the unit ends, however it ends.

umask 077
directory=/run/tritonhost/$UNIT
case $(systemctl show --property=ActiveState "$UNIT.service") in
    ActiveState=active | ActiveState=activating | ActiveState=deactivating)
        cat >/dev/null
        echo attached
        exit 0
        ;;
esac
systemctl reset-failed "$UNIT.service" 2>/dev/null
rm -rf "$directory"
mkdir -p "$directory" || exit 1
base64 -d | tar -xzf - -C "$directory" || exit 1
# containers mount it: SELinux's own rule for the directory, where there is SELinux (operations/plan/selinux.py)
[ ! -e /sys/fs/selinux/enforce ] || restorecon -R "$directory" 2>/dev/null || :
journalctl --quiet --no-pager --lines=1 --output=cat --show-cursor | sed -n 's/^-- cursor: /cursor: /p'
systemd-run --quiet --unit="$UNIT" --property=ExecStopPost="/bin/rm -rf $directory" \
    --property=KillMode=mixed --property=TimeoutStopSec=20 /bin/sh "$directory/work.sh" || exit 1
echo started
