# Runs a command under other version locks, which stay if it succeeds; else the locks before it are put back.
#
# Usage: sh under_locks.sh FRESH COMMAND [ARGUMENT]...       FRESH: the whole list as it should be
#
# The plugin keeps dnf from every version that is not in its list, and so from the one that is to be installed.

list=${LOCK_LIST:-/etc/dnf/plugins/versionlock.list}
fresh=$1
shift

put() { install -D -m 0644 "$fresh" "$list.new" && mv -T "$list.new" "$list"; }

existed=
if [ -e "$list" ]; then
    existed=1
    cp -p "$list" "$list.before" && put || exit 1
fi
"$@"
code=$?
if [ "$code" = 0 ]; then
    # a plugin that was just installed brought an empty list
    put || code=$?
    rm -f "$list.before"
elif [ -n "$existed" ]; then
    mv -T "$list.before" "$list"
fi
exit "$code"
