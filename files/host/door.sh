# Runs the door's container for its unit, waits for it, and records what runs. Its one argument: serve, answers, loaded.
#
# Input, as shell variables set in front of this text: NAME (its unit and container), USAGE (the directory of its counters),
# USER_ID, IMAGE_RECORD (a file that holds the image's id), URL, RECORD; and the function `run_it`, which runs the image $image.

set -u
label='{{index .Config.Labels "tritonhost.door"}}'
case $1 in
    serve)
        owner=$(docker inspect --format "$label" "$NAME" 2>/dev/null) || owner=nobody
        case $owner in
            nobody) ;;
            '' | '<no value>')
                echo "tritonhost: container $NAME: found one that is not ours, expected none of that name; remove or" \
                    "rename it, or change service_name" >&2
                exit 64
                ;;
            *) docker rm --force "$NAME" >/dev/null ;;
        esac
        image=$(cat "$IMAGE_RECORD") || {
            echo "tritonhost: found no record of the door's image, expected its id in $IMAGE_RECORD; run the deploy" >&2
            exit 65
        }
        # the directory above is root's, so that no link can take its place
        install -d -m 700 -o "$USER_ID" -g "$USER_ID" "$USAGE" || exit 1
        run_it
        ;;
    answers)
        # live, not ready: the model may be loading, and the door says so to clients
        # asked until this container is the one that answers: of another program on the port, this one ends
        while :; do
            kill -0 "${MAINPID:-}" 2>/dev/null || {
                echo "tritonhost: $NAME ended before it answered; see the lines above" >&2
                exit 1
            }
            curl --silent --fail --max-time 5 --output /dev/null "$URL/health/live" &&
                [ "$(docker inspect --format '{{.State.Running}}' "$NAME" 2>/dev/null)" = true ] && break
            sleep 0.2
        done
        sleep 0.5
        kill -0 "${MAINPID:-}" 2>/dev/null || {
            echo "tritonhost: $NAME ended at once, expected its port to be free; see the lines above" >&2
            exit 1
        }
        ;;
    loaded)
        docker inspect --format "$label" "$NAME" >"$RECORD"
        ;;
esac
