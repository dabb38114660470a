# Holds the host's lock for as long as standard input stays open: the kernel frees it when the holder's process ends, and
# that ends with the operator's connection. Input: WHO (one line), DIRECTORY (on tmpfs). Prints `held`, or `refused` and who holds it.

umask 077
mkdir -p "$DIRECTORY"
exec 9>>"$DIRECTORY/lock"
if ! flock --nonblock 9; then
    echo "refused $(cat "$DIRECTORY/lock.holder" 2>/dev/null)"
    exit 1
fi
printf '%s; on this host: process %s\n' "$WHO" "$$" >"$DIRECTORY/lock.holder"
echo held
exec cat >/dev/null
