# Functions of the probe and of the repair: who owns the files that root runs or the server reads, and who else may write to
# them. Input, lists of one path per line: SEALED (directories of DATA_ROOT), OWNED (files of ours), SITE (other files that
# root reads, and directories above them), DROPINS (directories of a site's own additions to our units).

# For each path with a wrong owner or mode: the path, a tab, mode:user:group.
exposed() {
    as='%p\t%m:%U:%G\n'
    # right: owned by root, writable only by root, readable by the server, no setuid, setgid or sticky bit
    wrong='( ! -uid 0 -o -perm /7022 -o -type f ! -perm -444 -o -type d ! -perm -555 )'
    find $(printf '%s\n' "$SEALED" | sed "/^sources\$/d; s|^|$DATA_ROOT/|") ! -type l ! -path '*/.*.partial*' \
        $(printf '%s' "$wrong" | tr ' ' '\n') -printf "$as"
    # a checkout has tens of thousands of files; only take_back.sh and the fact before it read all of them (DEEP)
    find "$DATA_ROOT/sources" -maxdepth "${DEEP:-2}" ! -type l ! -path '*/.*.partial*' \
        $(printf '%s' "$wrong" | tr ' ' '\n') -printf "$as"
    find "$DATA_ROOT/images" "$DATA_ROOT/verdicts" "$DATA_ROOT/measurements" ! -type l \( ! -uid 0 -o -perm /022 \) -printf "$as"
    find "$DATA_ROOT" -maxdepth 0 \( ! -uid 0 -o -perm /022 \) -printf "$as"
    # where servers write, each in a directory of its own, and nowhere else
    find "$DATA_ROOT/caches" -maxdepth 0 \( ! -uid 0 -o -perm /022 \) -printf "$as"
    # of several services: the directories of their links
    find "$DATA_ROOT/services" -maxdepth 1 ! -type l \( ! -uid 0 -o -perm /022 \) -printf "$as"
    # PostgreSQL's socket is in it
    find "$DATA_ROOT/database" -maxdepth 0 \( ! -uid 0 -o -perm /077 \) -printf "$as"
    find "$DATA_ROOT/services" -mindepth 2 -maxdepth 2 -name database \( ! -uid 0 -o -perm /077 \) -printf "$as"
    # a link instead of a file may lead to a file that another user can write
    find $OWNED -maxdepth 0 \( -type l -printf '%p\tlink:%U:%G\n' -o \( ! -uid 0 -o -perm /022 \) -printf "$as" \)
    find -H $SITE -maxdepth 0 \( ! -uid 0 -o -perm /022 \) -printf "$as"
    find $DROPINS -maxdepth 1 ! -type l \( ! -uid 0 -o -perm /022 \) -printf "$as"
} 2>/dev/null
