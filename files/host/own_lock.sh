# Runs before every script of a run that changes the host, and ends it unless the run still holds the lock. If a run was
# suspended for a while, another run may have the host by now.
# Input: WHO (as given to hold_lock.sh), DIRECTORY.

case $(cat "$DIRECTORY/lock.holder" 2>/dev/null) in
    "$WHO"*) ! flock --nonblock "$DIRECTORY/lock" true 2>/dev/null || ! echo "lock: found it free, expected this run to hold it" >&2 ;;
    *) ! echo "lock: found another holder, expected this run to hold it: it was silent for too long" >&2 ;;
esac || exit 75
