# Receives the files of an artifact from another host, and compares each with what that host's manifest says.
#
# Usage: sh receive_files.sh DIRECTORY URL GIVER LIMIT      beside it: list (lines of SHA-256, size, name and name in the URL, with tabs between
# them), peer.pem, token. LIMIT: bytes a second; 0: none
#
# A file that is there and right is not asked for again, and half a file is continued.

place=$1 url=$2 giver=$3 limit=$4
here=$(dirname "$0")
tab=$(printf '\t')
refuse() {
    echo "tritonhost: refused: $giver: $1"
    exit "${2:-65}"
}

set --
[ "$limit" = 0 ] || set -- --limit-rate "$limit"
total=0
while IFS=$tab read -r sum size name quoted; do
    case /$name/ in *//* | */../* | */./*) refuse "$name: found it in the list, expected a path inside the artifact, expected SHA-256 $sum" ;; esac
    path=$place/$name
    mkdir -p "$(dirname "$path")" || exit 1
    if [ -e "$path" ] && [ "$(stat -c %s "$path")" -ge "$size" ]; then
        [ "$(sha256sum <"$path" | cut -c -64)" != "$sum" ] || continue
        rm -f "$path"
    fi
    if [ "$size" = 0 ]; then
        : >"$path"
        continue
    fi
    began=$(date +%s)
    while :; do
        continued=
        [ ! -s "$path" ] || continued=yes
        code=0
        curl --silent --show-error --fail --noproxy '*' --cacert "$here/peer.pem" --header "@$here/token" --connect-timeout 5 \
            --speed-limit 1024 --speed-time 30 --continue-at - "$@" --output "$path" "$url/$quoted" </dev/null || code=$?
        case $code in
            0) ;;
            # this host could not write it
            23) exit 23 ;;
            *) refuse "$name: curl ended with exit code $code, expected $size bytes; see the line above" 69 ;;
        esac
        [ "$(sha256sum <"$path" | cut -c -64)" != "$sum" ] || break
        rm -f "$path"
        # what was there before may have been the beginning of another file
        [ -n "$continued" ] || refuse "$name: found another content than its manifest says, expected SHA-256 $sum"
    done
    total=$((total + size))
    [ "$size" -lt 67108864 ] || echo "received $name: $((size / 1048576)) MiB in $(($(date +%s) - began)) s"
done <"$here/list"
# what an interrupted run of another kind has left is not of this artifact
find "$place" -type f -printf '%P\n' | while read -r name; do
    cut -f 3 "$here/list" | grep -q -x -F -e "$name" || rm -f "$place/$name"
done
echo "received from $giver: $((total / 1048576)) MiB"
