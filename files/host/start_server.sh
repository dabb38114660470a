# Starts a server's unit without waiting for it: SERVICE (its unit), FRONT (the proxy's unit), RELEASE (the directory that the
# unit will run), VERB (restart, or start if it is already starting). Prints the time and the journal's cursor of that moment.

# a release without a proxy uses the proxy's ports itself; for a release with a proxy it is started later
if [ "${RELEASE##*/}" = current ] && [ ! -e "$RELEASE/serve-next" ]; then
    systemctl disable --quiet --now "$FRONT.service" 2>/dev/null || :
fi
systemctl reset-failed "$SERVICE.service" 2>/dev/null
echo "started: $(date +%s)"
journalctl --quiet --no-pager --lines=1 --output=cat --show-cursor | sed -n 's/^-- cursor: /cursor: /p'
systemctl "$VERB" --no-block "$SERVICE.service"
