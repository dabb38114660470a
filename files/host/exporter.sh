# Runs an exporter's container for its unit, waits for it, and records what runs. Its one argument: serve, answers, loaded, shows.
#
# Input, as shell variables set in front of this text: NAME (its unit and container), IMAGE_RECORD (a file that holds the image's
# id), URL (its page of metrics; its certificate is of the name by which others ask, and not looked at), RECORD, SHOWS (lines of a metric, a space, and how many samples of it the page has at least),
# SECONDS_AT_MOST (for that); and the function `run_it`, which runs the image $image.

set -u
label='{{index .Config.Labels "tritonhost.exporter"}}'

# The first metric that the page lacks: its name and the number of its samples. Nothing if it has them all.
lacking() {
    page=$(curl --silent --insecure --fail --max-time 10 "$URL") || page=
    printf '%s\n' "$SHOWS" | while read -r metric least; do
        [ -n "$metric" ] || continue
        count=$(printf '%s\n' "$page" | grep -c "^${metric}[{ ]")
        [ "$count" -ge "$least" ] || {
            echo "$count samples of $metric, expected $least or more"
            return
        }
    done
}

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
            echo "tritonhost: found no record of the image of $NAME, expected its id in $IMAGE_RECORD; run the deploy" >&2
            exit 65
        }
        run_it
        ;;
    answers)
        # whatever its page says: a GPU that is lost has to be seen there
        until curl --silent --insecure --max-time 10 --output /dev/null "$URL"; do
            kill -0 "${MAINPID:-}" 2>/dev/null || {
                echo "tritonhost: $NAME ended before it answered; see the lines above" >&2
                exit 1
            }
            sleep 0.2
        done
        ;;
    loaded)
        docker inspect --format "$label" "$NAME" >"$RECORD"
        ;;
    shows)
        end=$(($(date +%s) + SECONDS_AT_MOST))
        while found=$(lacking) && [ -n "$found" ]; do
            [ "$(date +%s)" -lt "$end" ] || {
                echo "tritonhost: $NAME: found $found on $URL after $SECONDS_AT_MOST s; see: journalctl --unit $NAME" >&2
                exit 1
            }
            sleep 1
        done
        ;;
esac
