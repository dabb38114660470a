# Installs the gateway's files, or (TEST=yes) only tests them: nginx reads them in a container like the one that serves. Input:
# TEST, DIRECTORY, FRESH (a name in it), USER_ID, NGINX_FILES, IMAGE_RECORD, RECORD (a file that says what nginx has read), the
# function `test_it`, which runs `nginx -t` of the image $image over $fresh; on standard input a base64 tar archive with all files.
#
# Each file is replaced atomically, and no other user can read it at any moment.

set -u
umask 077
fresh=$DIRECTORY/$FRESH
mkdir -p "$DIRECTORY" || exit 1
# owned by root, and open only to the container's user
chown "0:$USER_ID" "$DIRECTORY" && chmod 750 "$DIRECTORY" || exit 1
rm -rf "$fresh"
mkdir "$fresh" && base64 -d | tar -xzf - -C "$fresh" || {
    echo "gateway: its files could not be written to $fresh; see the disk and the lines above" >&2
    exit 1
}
for name in $NGINX_FILES; do
    chown "$USER_ID:$USER_ID" "$fresh/$name" && chmod 400 "$fresh/$name" || exit 1
done
chown "0:$USER_ID" "$fresh" && chmod 750 "$fresh" || exit 1
image=$(cat "$IMAGE_RECORD") || exit 1
said=$(test_it 2>&1) || {
    rm -rf "$fresh"
    # not a line about the file of the keys: nginx quotes what it cannot parse
    why=$(printf '%s\n' "$said" | grep -v keys.map | grep -m 1 emerg)
    echo "gateway: nginx refuses its configuration: ${why:-no word of nginx}; what runs was left as it is" >&2
    exit 1
}
if [ "$TEST" != yes ]; then
    for file in "$fresh"/*; do
        mv -T "$file" "$DIRECTORY/${file##*/}" || exit 1
    done
    # what nginx has read is not known any more: somebody may have changed a file and told nginx to read it
    if [ -f "$RECORD" ]; then
        key=$(cut -d ' ' -f 1 "$RECORD") && printf '%s replaced\n' "$key" >"$RECORD" || exit 1
    fi
fi
rm -rf "$fresh"
