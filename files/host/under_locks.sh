# Runs a command with other version locks, which stay if it succeeds; otherwise the old locks are restored.
#
# Usage: sh under_locks.sh FRESH COMMAND [ARGUMENT]...       FRESH: a file with the complete new list
#
# The plugin keeps dnf from every version that is not in its list, and so from the version to install.

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
    # a newly installed plugin has brought an empty list
    put || code=$?
    rm -f "$list.before"
elif [ -n "$existed" ]; then
    mv -T "$list.before" "$list"
fi
exit "$code"
