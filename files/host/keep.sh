# Saves a unit's files until it has started with the new ones: KEPT (a file on tmpfs), PATHS (files, one per line).
# They may include secrets: only root can read KEPT.

set -eu
umask 077
IFS='
'
set -f
set --
for path in $PATHS; do
    [ ! -e "$path" ] || set -- "$@" "${path#/}"
done
rm -f "$KEPT"
[ $# = 0 ] || tar -C / -cpf "$KEPT" "$@"
