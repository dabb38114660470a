# Receives an image from another host's docker, and compares its id with the one that host has recorded.
#
# Usage: sh receive_image.sh TAG ID URL GIVER LIMIT      beside it: peer.pem, token. LIMIT: bytes a second; 0: none

tag=$1 id=$2 url=$3 giver=$4 limit=$5
here=$(dirname "$0")
refuse() {
    echo "tritonhost: refused: $giver: $1"
    exit "${2:-65}"
}

set --
[ "$limit" = 0 ] || set -- --limit-rate "$limit"
ended=$here/ended
{
    # docker writes all of an image to its disk before it says the first of it
    curl --silent --show-error --fail --noproxy '*' --cacert "$here/peer.pem" --header "@$here/token" --connect-timeout 5 \
        --speed-limit 1024 --speed-time 1800 "$@" "$url"
    echo "$?" >"$ended"
} | docker load --quiet
[ "$(cat "$ended")" = 0 ] || refuse "image $tag: curl ended with exit code $(cat "$ended"), expected all of it; see the line above" 69
found=$(docker image inspect --format '{{.Id}}' "$tag" 2>/dev/null)
[ "$found" = "$id" ] || {
    docker rmi --force "$tag" >/dev/null 2>&1
    refuse "image $tag: found ${found:-none}, expected SHA-256 ${id#*:}"
}
echo "received from $giver: image $tag"
