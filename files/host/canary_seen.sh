# What haproxy has written down of requests: host, status, milliseconds to the first byte, how each ended. Input: UNIT, SINCE (seconds).

journalctl --quiet --no-pager --output=cat --unit="$UNIT" --since="@$SINCE" |
    sed -n -E 's/^request client=[^ ]+ host=([^ ]+) status=(-?[0-9]+) first_ms=(-?[0-9]+) whole_ms=[^ ]+ bytes=[^ ]+ end=([^ ]+)$/\1 \2 \3 \4/p'
