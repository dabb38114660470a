# What this host knows of one service, as metrics for Prometheus. Its one argument: print (to standard output), write (to
# OUTPUT, atomically), remove (OUTPUT), begun N and converged N (note a run that found N differences).
#
# Input, as shell variables set in front of this text: DATA_ROOT, STATE_ROOT (of the service), SERVICE (its unit), ALONE (yes: the
# host has no other service), GPUS (how many it uses), URLS (lines of a model, a tab, and the URL that says whether it is ready),
# CERTIFICATE (the gateway's file, or empty), EXPECTED (a file: digests and paths of what the last run left), RUN (a file: what the
# last run knew), OUTPUT (a file in the directory that node_exporter reads).
#
# A value that cannot be read is left out: a rule would take a wrong one for the truth.

set -u
umask 022
LC_ALL=C TZ=UTC0
export LC_ALL TZ
PATH=$PATH:/usr/sbin:/sbin

# TEXT: without what would end a label's value, or begin an escape
plain() { printf '%s' "$1" | tr -c 'A-Za-z0-9._:/@+-' '_'; }

# NAME HELP LABELS VALUE: one sample, with the head of its family before the first
family=
sample() {
    case $4 in '' | . | *[!0-9.]* | *.*.*) return ;; esac
    [ "$1" = "$family" ] || printf '# HELP %s %s\n# TYPE %s gauge\n' "$1" "$2" "$1"
    family=$1
    printf '%s{service="%s"%s} %s\n' "$1" "$SERVICE" "$3" "$4"
}

# DATE: in seconds since 1970; empty for what is no date
seconds() { [ -z "$1" ] || date -u -d "$1" +%s 2>/dev/null; }

# RELEASE KEY: a text of its release.json, which holds one key a line
of_release() { sed -n "s/^  \"$2\": \"\\(.*\\)\",\{0,1\}\$/\\1/p" "$DATA_ROOT/releases/$1/release.json" 2>/dev/null | head -n 1; }

# LINK: the release that it points to
linked() {
    to=$(readlink "$STATE_ROOT/$1" 2>/dev/null) || to=
    plain "${to##*/}"
}

# The verdict files of this service. Those of removed releases do not say whose they were.
verdict_files() {
    for file in "$DATA_ROOT"/verdicts/*; do
        [ -f "$file" ] || continue
        [ "$ALONE" = yes ] || [ "$(of_release "${file##*/}" service)" = "$SERVICE" ] || continue
        printf '%s\n' "$file"
    done
}

# For each word of a verdict, and for golden answers that differed: the word, and when that was last.
last_verdicts() {
    verdict_files | while IFS= read -r file; do
        head -n 1 "$file" 2>/dev/null
        echo
    done | awk '
        $2 !~ /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]Z$/ { next }
        $1 ~ /^(proven|failed|withdrawn)$/ && $2 > last[$1] { last[$1] = $2 }
        # the beginning of what is said of a release that was held back for its answers
        $1 == "failed" && /^[^ ]+ [^ ]+ golden request to / && $2 > last["golden"] { last["golden"] = $2 }
        END { for (word in last) print word, last[word] }'
}

# FIGURE: what was measured of the running release
measured() { sed -n "s/^\(.* \)*$1=\([^ ]*\).*/\2/p" "$DATA_ROOT/measurements/$current" 2>/dev/null | head -n 1; }

# NAME: what the last run noted
noted() { sed -n "s/^$1=\\([0-9][0-9]*\\)\$/\\1/p" "$RUN" 2>/dev/null | head -n 1; }

# The end of the certificate that ends first, in the file that holds them all
certificate_end() {
    [ -n "$CERTIFICATE" ] && [ -r "$CERTIFICATE" ] || return
    openssl crl2pkcs7 -nocrl -certfile "$CERTIFICATE" 2>/dev/null | openssl pkcs7 -print_certs -text -noout 2>/dev/null |
        sed -n 's/^ *Not After *: *//p' | while IFS= read -r end; do seconds "$end"; done | sort -n | head -n 1
}

# How many files are not as the last run left them: those outside the data root, and the running release's own
changed_files() {
    {
        [ ! -r "$EXPECTED" ] || sha256sum --check "$EXPECTED" 2>/dev/null
        [ ! -r "$STATE_ROOT/current/SHA256SUMS" ] || (cd "$STATE_ROOT/current" && sha256sum --check SHA256SUMS 2>/dev/null)
    } | grep -vc ': OK$'
}

release_metrics() {
    if [ -n "$current" ]; then
        model=$(plain "$(of_release "$current" model)")
        sample tritonhost_release_info 'The release that the link current names.' ",model=\"$model\",release=\"$current\"" 1
    fi
    previous=$(linked previous)
    [ -z "$previous" ] ||
        sample tritonhost_previous_release_info 'The release that a rollback would run.' ",release=\"$previous\"" 1
    state=$(systemctl show --property=ActiveState "$SERVICE.service" 2>/dev/null)
    active=0
    [ "$state" != ActiveState=active ] || active=1
    [ -z "$state" ] || sample tritonhost_service_active 'Whether the unit of the server is active.' '' "$active"
    if [ "$active" = 1 ]; then
        since=$(systemctl show --property=ActiveEnterTimestamp "$SERVICE.service" 2>/dev/null)
        sample tritonhost_service_active_since_timestamp_seconds 'When the unit of the server became active.' '' \
            "$(seconds "${since#ActiveEnterTimestamp=}")"
    fi
    sample tritonhost_gpus 'How many GPUs the service uses.' '' "$GPUS"
}

ready_metrics() {
    while IFS='	' read -r model url; do
        [ -n "$url" ] || continue
        code=$(curl --silent --max-time 3 --output /dev/null --write-out '%{http_code}' "$url" 2>/dev/null)
        ready=0
        [ "$code" != 200 ] || ready=1
        sample tritonhost_model_ready 'Whether a model of the server answers that it is ready.' \
            ",triton_model=\"$(plain "$model")\"" "$ready"
    done <<END
$URLS
END
}

verdict_metrics() {
    last=$(last_verdicts)
    for word in proven failed withdrawn; do
        sample tritonhost_verdict_timestamp_seconds 'When a release last got this verdict.' ",verdict=\"$word\"" \
            "$(seconds "$(printf '%s\n' "$last" | sed -n "s/^$word //p")")"
    done
    sample tritonhost_golden_drift_timestamp_seconds 'When a release was last held back for its golden answers.' '' \
        "$(seconds "$(printf '%s\n' "$last" | sed -n 's/^golden //p')")"
    proven=$(sed -n '1s/^proven \([0-9-]*T[0-9:]*Z\).*/\1/p' "$DATA_ROOT/verdicts/$current" 2>/dev/null)
    [ -z "$current" ] || sample tritonhost_release_proven_timestamp_seconds \
        'When the running release last gave its golden answers to a run.' ",release=\"$current\"" "$(seconds "$proven")"
}

measured_metrics() {
    [ -n "$current" ] || return
    for figure in load answer first_token; do
        sample "tritonhost_measured_${figure}_seconds" 'What was measured of the running release when it was proven.' \
            ",release=\"$current\"" "$(measured "${figure}_s")"
    done
    mib=$(measured gpu_mib)
    case $mib in
        '' | *[!0-9]* | ???????????*) ;;
        *) sample tritonhost_measured_gpu_memory_bytes 'GPU memory that the running release took on a GPU.' \
            ",release=\"$current\"" "$((mib * 1048576))" ;;
    esac
}

run_metrics() {
    sample tritonhost_run_start_timestamp_seconds 'When the last run began that found a difference.' '' "$(noted start)"
    sample tritonhost_run_differences 'How many differences that run found.' '' "$(noted differences)"
    sample tritonhost_run_converged_timestamp_seconds 'When a run last left the host converged after a change.' '' \
        "$(noted converged)"
    sample tritonhost_files_changed 'Files that are not as the last run left them.' '' "$(changed_files)"
}

print() {
    current=$(linked current)
    release_metrics
    ready_metrics
    verdict_metrics
    measured_metrics
    sample tritonhost_gateway_certificate_end_timestamp_seconds "When the gateway's certificate ends." '' "$(certificate_end)"
    run_metrics
}

# FILE: standard input as a new file in its place, at once. Others may write to its directory: a link of theirs is not followed.
# The timer and a run may write at the same time: each has a new file of its own.
replace() {
    # those of a script that was killed
    find "${1%/*}" -maxdepth 1 -name ".${1##*/}.*.new" -mmin +10 -delete 2>/dev/null
    fresh=${1%/*}/.${1##*/}.$$.new
    rm -f "$fresh"
    (set -C && cat >"$fresh") && mv -T "$fresh" "$1" || {
        rm -f "$fresh"
        echo "metrics: found no way to write $1, expected a directory with free space; see the line above" >&2
        exit 1
    }
}

case ${1:-print} in
    print) print ;;
    write) print | replace "$OUTPUT" ;;
    remove) rm -f "$OUTPUT" "${OUTPUT%/*}/.${OUTPUT##*/}".*.new ;;
    begun) printf 'start=%s\ndifferences=%s\nconverged=%s\n' "$(date +%s)" "$2" "$(noted converged)" | replace "$RUN" ;;
    converged) printf 'start=%s\ndifferences=%s\nconverged=%s\n' "$(noted start)" "$2" "$(date +%s)" | replace "$RUN" ;;
esac
