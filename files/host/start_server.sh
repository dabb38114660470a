# Starts a server's unit without waiting for it: SERVICE (its unit), FRONT (the front's unit), RELEASE (the directory
# that the unit will run), VERB (restart, or start where it is being started already). Prints when, and the journal's cursor of that moment.

# a release that has no front uses the front's ports itself; one that was started with a front wants it afterwards
if [ "${RELEASE##*/}" = current ] && [ ! -e "$RELEASE/serve-next" ]; then
    systemctl disable --quiet --now "$FRONT.service" 2>/dev/null || :
fi
systemctl reset-failed "$SERVICE.service" 2>/dev/null
echo "started: $(date +%s)"
journalctl --quiet --no-pager --lines=1 --output=cat --show-cursor | sed -n 's/^-- cursor: /cursor: /p'
systemctl "$VERB" --no-block "$SERVICE.service"
