# Grafana's administrator has the password of a file. Input: NAME (the container), USER_NAME, PASSWORD_FILE, URL of Grafana, RECORD
# (a file for root alone: the digest of the password that was proven; without it the next run tries again).
# The password is on no command line: curl and Grafana read it from their standard input.

set -u
# the status of a question that only the administrator may ask
asked() {
    printf 'user = "%s:%s"\n' "$USER_NAME" "$(sed 's/[\\"]/\\&/g' "$PASSWORD_FILE")" |
        curl --config - --silent --insecure --max-time 20 --output /dev/null --write-out '%{http_code}' "$URL/api/org"
}
status=$(asked)
if [ "$status" = 401 ]; then
    said=$(docker exec --interactive "$NAME" grafana cli admin reset-admin-password --password-from-stdin <"$PASSWORD_FILE" 2>&1) || {
        echo "Grafana: its password could not be set: $(printf '%s\n' "$said" | tail -n 1 | cut -c 1-300)" >&2
        exit 1
    }
    status=$(asked)
fi
[ "$status" = 200 ] || {
    echo "Grafana: found the answer $status of $URL/api/org to the administrator, expected 200; after five wrong passwords" \
        "Grafana refuses all for five minutes: run again then, or see: journalctl --unit $NAME" >&2
    exit 1
}
umask 077
sha256sum <"$PASSWORD_FILE" | cut -c -64 >"$RECORD.new" && mv -T "$RECORD.new" "$RECORD"
