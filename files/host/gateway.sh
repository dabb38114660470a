# Runs the gateway's container for its unit, waits for it, and records what nginx has read. Its one argument: serve,
# answers, reload, loaded.
#
# Input, as shell variables set in front of this text: NAME (its unit and container), DIRECTORY, FILES (those that nginx
# reads, in order), IMAGE_RECORD (a file that holds the image's id), URL, RECORD; and the function `run_it`, which runs the
# image $image.

set -u
label='{{index .Config.Labels "tritonhost.gateway"}}'
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
            echo "tritonhost: found no record of the gateway's image, expected its id in $IMAGE_RECORD; run the deploy" >&2
            exit 65
        }
        run_it
        ;;
    answers)
        # any answer counts: without a key it is a refusal
        until curl --silent --insecure --max-time 5 --output /dev/null "$URL/"; do
            kill -0 "${MAINPID:-}" 2>/dev/null || {
                echo "tritonhost: $NAME ended before it answered; see the lines above" >&2
                exit 1
            }
            sleep 0.2
        done
        ;;
    reload)
        # ends when no process with the old files accepts connections any more; it still finishes the requests it has begun
        init=$(docker inspect --format '{{.State.Pid}}' "$NAME") || exit 1
        # docker's init, and below it nginx's master process; the kernel's list does not end with a line break
        master=$(cut -d ' ' -f 1 "/proc/$init/task/$init/children") || exit 1
        before=$(cat "/proc/$master/task/$master/children")
        docker kill --signal HUP "$NAME" >/dev/null || exit 1
        attempt=0
        while [ "$attempt" -lt 100 ]; do
            sleep 0.1
            attempt=$((attempt + 1))
            old=
            for process in $before; do
                case $(tr '\0' ' ' 2>/dev/null <"/proc/$process/cmdline") in
                    '' | *'shutting down'*) ;;
                    *) old=$process ;;
                esac
            done
            [ -n "$old" ] || exit 0
        done
        echo "tritonhost: process $old of $NAME still takes connections with its old files 10 s after it was told" >&2
        exit 1
        ;;
    loaded)
        cd "$DIRECTORY" || exit 1
        {
            docker inspect --format "$label" "$NAME"
            cat $FILES | sha256sum | cut -c -64
        } | paste -d ' ' - - >"$RECORD"
        ;;
esac
