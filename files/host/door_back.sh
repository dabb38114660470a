# After a door that answers wrongly, what ran before it runs again: UNIT, KEPT (its files), RECORD (the key that its unit wrote down).
# Without such files the door goes on, and its record says that it is not proven: the next run does not take it for good.

if [ -s "$KEPT" ] && tar -C / -xpf "$KEPT"; then
    rm -f "$KEPT"
    systemctl daemon-reload
    systemctl reset-failed "$UNIT" 2>/dev/null
    if systemctl restart "$UNIT" 2>/dev/null; then
        echo "door: what it ran with before is back, and it runs with it"
    else
        echo "door: what it ran with before is back, and it does not start with that either; see journalctl --unit $UNIT"
    fi
else
    [ ! -s "$RECORD" ] || printf 'not proven\n' >"$RECORD"
    echo "door: there was none before; it goes on, and the next run asks it again"
fi
