# Starts a transient unit unless it runs already, and prints the journal's cursor of that moment.
#
# Input, as shell variables: UNIT; on standard input a base64 tar archive with the unit's work.sh and its other
# files. They are on tmpfs, readable only by root, and are removed when the unit ends, even if it fails.

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
# a token among its files must not outlive a failed start or a lost connection
trap 'rm -rf "$directory"' EXIT
trap 'exit 143' HUP INT TERM
mkdir -p "$directory" || exit 1
base64 -d | tar -xzf - -C "$directory" || exit 1
# the containers' user may read what they mount, except the token
find "$directory" ! -name token ! -name work.sh -exec chmod a+rX {} + 2>/dev/null
# containers mount it: with SELinux, it gets the label of its rule (operations/plan/machine/selinux.py)
[ ! -e /sys/fs/selinux/enforce ] || restorecon -R "$directory" 2>/dev/null || :
journalctl --quiet --no-pager --lines=1 --output=cat --show-cursor | sed -n 's/^-- cursor: /cursor: /p'
systemd-run --quiet --unit="$UNIT" --property=ExecStopPost="/bin/rm -rf $directory" \
    --property=KillMode=mixed --property=TimeoutStopSec=20 /bin/sh "$directory/work.sh" || exit 1
trap - EXIT # the unit owns it now
echo started
