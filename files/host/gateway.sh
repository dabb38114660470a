# Runs the gateway's container for its unit, waits for it, and writes down what nginx has read. Its one argument: serve,
# answers, loaded.
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
        # whatever it answers: without a key that is a refusal
        until curl --silent --insecure --max-time 5 --output /dev/null "$URL/"; do
            kill -0 "$MAINPID" 2>/dev/null || exit 1
            sleep 0.2
        done
        ;;
    loaded)
        cd "$DIRECTORY" || exit 1
        {
            docker inspect --format "$label" "$NAME"
            cat $FILES | sha256sum | cut -c -64
        } | paste -d ' ' - - >"$RECORD"
        ;;
esac
