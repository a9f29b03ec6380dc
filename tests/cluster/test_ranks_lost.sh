#!/bin/bash
# Ranks that are killed, stopped or cut off on one of two hosts: the job ends on both, in seconds, and one
# message names rank and host.
# shellcheck disable=SC2317 # functions are called by ok and within
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
# shellcheck source=tests/cluster/job.sh
. tests/cluster/job.sh
watchdog=2

[ "${1:-}" = inside ] || enter "ranks lost on one of two hosts" tests/cluster/hosts 2
exec 2>&1

# The process of rank $1. (All hosts share the numbers of processes.)
rank_process() {
    local folder
    for folder in /proc/[0-9]*; do
        [ "$(cat "$folder/comm" 2>/dev/null)" = saf ] || continue
        tr '\0' '\n' 2>/dev/null <"$folder/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$1" || continue
        echo "${folder#/proc/}"
        return
    done
    return 1
}

no_ranks() { ! rank_process 0 >/dev/null && ! rank_process 1 >/dev/null; }

runs() { grep -q "requests to go" "$folder/log"; }

# Starts a job that takes minutes, with a watchdog of $1 seconds, and waits until both ranks run.
start_job() {
    rm -f "$folder/lost.h5"
    mpirun --hostfile "$HOSTFILE" -np 2 "$SAF" run "${words[@]}" generate.max_tokens=100000 \
        run.context=110000 generate.ignore_eos=true "run.watchdog_seconds=$1" \
        "output.file=$folder/lost.h5" >"$folder/log" 2>&1 &
    launcher=$!
    ok "a job runs" within 60 runs
}

launcher_ended() { ! kill -0 "$launcher" 2>/dev/null; }

says() { grep -Eq "$1" "$folder/log" || { cat "$folder/log"; return 1; }; }

# Rank $2 gets signal $1; the job ends within $3 seconds, with exit code $4, text $5 and $6 errors of saf.
# Killed, a rank is mpirun's business alone.
lose() {
    local what="rank $2 gets $1" status=0 seconds=300
    [ "$1" = KILL ] || seconds=$watchdog
    start_job "$seconds" || return
    kill "-$1" "$(rank_process "$2")"
    ok "$what: the job ends in time" within "$3" launcher_ended
    kill -KILL "$launcher" 2>/dev/null
    wait "$launcher" 2>/dev/null || status=$?
    equal "$what: exit code" "$status" "$4"
    ok "$what: rank and host are named" says "$5"
    equal "$what: saf says one thing at most" "$(grep -c 'error: ' "$folder/log")" "$6"
    ok "$what: no rank is left" within 5 no_ranks
    ok "$what: no results" test ! -e "$folder/lost.h5"
}

prepare_job || tap_exit
for rank in 0 1; do
    lose KILL $rank 5 137 "process rank $rank with PID [0-9]+ on node h$((rank + 1)) exited on signal 9" 0
    lose STOP $rank $((watchdog + 6)) 124 \
        "error: rank $rank on h$((rank + 1)) has not answered for $watchdog seconds, while running" 1
done

# mpirun itself then waits for its daemon on the other host, which is not to be reached either.
if start_job $watchdog; then
    "$RSH" h2 ip link set eth0 down
    ok "no network: the ranks of both hosts end" within 15 no_ranks
    ok "no network: rank and host are named" within 5 says "error: rank 1 on h2 has not answered for $watchdog seconds"
    kill -KILL "$launcher" 2>/dev/null
fi
tap_exit
