#!/bin/bash
# What the batch scripts share. To be sourced, in the checkout that saf was built in; the variable SAF
# names another build of it.
# shellcheck disable=SC2034 # used by the scripts
saf=${SAF:-build/saf}

# launch COMMAND...: runs what starts saf (mpirun, srun or saf itself), and returns its exit status.
#
# A scheduler announces the end of the walltime to this shell by USR1; it goes on to the ranks as a
# request to stop. It is held back until saf has said its first word: the launcher, or a rank that has not
# set its handlers yet, would die of it. Some schedulers send it to every process of the job: until then
# the launcher ignores it, and saf may hear it twice. With --quiet saf says a word for this script alone,
# because the variable asks for it.
launch() {
    launched='' asked=0 spoke=0
    trap 'asked=1; pass_on' USR1
    trap 'spoke=1; pass_on' USR2
    (
        trap '' USR1
        export SAF_FIRST_WORD=1
        exec "$@"
    ) 2> >(watch >&2) &
    launched=$!
    # A signal ends `wait` early, while the launcher runs on; once it is gone, `wait` still knows its
    # status.
    while kill -0 "$launched" 2>/dev/null; do wait "$launched"; done
    wait "$launched"
}

pass_on() {
    if [ "$asked" -eq 1 ] && [ "$spoke" -eq 1 ]; then kill -USR1 "$launched" 2>/dev/null; fi
}

# Copies standard error, and tells the script of the first line that is saf's.
watch() {
    trap '' USR1
    local line
    while IFS= read -r line; do
        [ "$line" = "saf: started" ] || printf '%s\n' "$line"
        case $line in saf*) kill -USR2 $$; break ;; esac
    done
    exec cat
}

# reach_by PROGRAM: mpirun reaches the other hosts through the scheduler's own PROGRAM, which takes a host
# and a command as ssh does, or through ssh where there is none. By its whole path: Open MPI looks for it
# on the other hosts as well, where PATH may be another.
reach_by() {
    local path
    if path=$(command -v "$1"); then export OMPI_MCA_plm_rsh_agent=$path; fi
}
