#!/bin/bash
# What the tests of this folder share: TAP lines, and running a test inside the hosts. To be sourced.
TAP_DONE=${TAP_DONE:-0} tap_failed=0

# ok NAME COMMAND...: passes if the command succeeds; what it prints explains a failure.
ok() {
    local name=$1 said
    shift
    TAP_DONE=$((TAP_DONE + 1))
    if said=$("$@" 2>&1); then
        echo "ok $TAP_DONE - $name"
    else
        echo "not ok $TAP_DONE - $name"
        [ -z "$said" ] || printf '%s\n' "$said" | sed 's/^/# /'
        tap_failed=1
        return 1
    fi
}

equal() { # equal NAME GOT EXPECTED
    ok "$1" same "$2" "$3"
}

same() {
    [ "$1" = "$2" ] || { printf 'got      %s\nexpected %s\n' "$1" "$2"; return 1; }
}

skip() { # skip NAME WHY
    TAP_DONE=$((TAP_DONE + 1))
    echo "ok $TAP_DONE - $1 # SKIP $2"
}

tap_exit() {
    exit "$tap_failed"
}

# enter NAME COMMAND...: runs this test once more inside what the command sets up (hosts, slurm) and
# exits with its status; or skips, for the reason the command gives.
enter() {
    local name=$1 said status=0
    shift
    export TAP_DONE
    exec 3>&1
    said=$("$@" -- bash "$0" inside 2>&1 >&3) || status=$?
    if [ $status -eq 77 ]; then
        skip "$name" "$(tail -n 1 <<<"$said")"
        tap_exit
    fi
    [ -z "$said" ] || printf '%s\n' "$said" | sed 's/^/# /'
    [ $status -eq 0 ] && [ $tap_failed -eq 0 ]
    exit
}

# Succeeds within SECONDS, or fails.
within() { # within SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.02
    done
}

# Whether no process has these words as its command line; those that do are listed.
no_process() {
    local file found=0
    for file in /proc/[0-9]*/cmdline; do
        if [ "$(tr '\0' ' ' 2>/dev/null <"$file")" = "$* " ]; then
            echo "left over: ${file//[^0-9]/}: $*"
            found=1
        fi
    done
    return $found
}
