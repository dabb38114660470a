# Watches a server that has just been proven: SERVICE (its container), SOAK (seconds). Fails as soon as the container is
# another one or gone: systemd would start it again, and hide the crash.

id=$(docker inspect --format '{{.Id}}' "$SERVICE" 2>/dev/null)
second=0
while [ "$second" -lt "$SOAK" ]; do
    sleep 1
    second=$((second + 1))
    [ "$(docker inspect --format '{{.Id}} {{.State.Running}}' "$SERVICE" 2>/dev/null)" = "$id true" ] || {
        echo "the server ended $second s after its golden answer"
        exit 1
    }
done
