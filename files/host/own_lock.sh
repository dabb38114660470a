# In front of every script of a run that changes the host: it ends here unless the run still holds the lock. A client that
# was stopped for a while, and goes on, may find that another run has the host meanwhile.
# Input: WHO (as given to hold_lock.sh), DIRECTORY.

case $(cat "$DIRECTORY/lock.holder" 2>/dev/null) in
    "$WHO"*) ! flock --nonblock "$DIRECTORY/lock" true 2>/dev/null || ! echo "lock: found it free, expected this run to hold it" >&2 ;;
    *) ! echo "lock: found another holder, expected this run to hold it: it was silent for too long" >&2 ;;
esac || exit 75
