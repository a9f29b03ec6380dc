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
    local launched asked=0 spoke status
    exec {spoke}<> <(:) # a pipe: there is something in it once saf has spoken
    trap 'asked=1' USR1
    (
        trap '' USR1
        export SAF_FIRST_WORD=1
        exec "$@" {spoke}>&-
    ) 2> >(watch >&2) &
    launched=$!
    # A signal ends `wait` early, while the launcher runs on; once it is gone, `wait` still knows its
    # status.
    while kill -0 "$launched" 2>/dev/null; do
        wait "$launched"
        while [ "$asked" -eq 1 ] && kill -0 "$launched" 2>/dev/null; do
            if read -r -t 0 -u "$spoke"; then
                asked=0
                kill -USR1 "$launched" 2>/dev/null
            else
                sleep 0.1
            fi
        done
    done
    wait "$launched"
    status=$?
    exec {spoke}>&-
    [ $status -ne 75 ] || again
    return $status
}

# saf was stopped early and goes on with the same command (75): the scheduler is to start this job again,
# up to MAX_RESTARTS times (20; 0: never). The job keeps its number. Slurm waits two minutes first, or what
# its `cred_expire` says; PBS grants `qrerun` to its operators, and at some sites to a job's owner. Every
# other end is one: an error would be the same again. (LSF does it by itself: `#BSUB -Q`.)
again() {
    local most=${MAX_RESTARTS:-20} job restarts put_back
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        job=$SLURM_JOB_ID restarts=${SLURM_RESTART_COUNT:-0} put_back="scontrol requeue"
    elif [ -n "${PBS_JOBID:-}" ]; then
        job=$PBS_JOBID restarts=$(($(pbs_starts "$job") - 1)) put_back=qrerun
    else
        return
    fi
    [ "$most" -ne 0 ] || return
    if [ "$restarts" -ge "$most" ]; then
        echo "job $job was started again $restarts times: submit it once more to go on" >&2
    elif $put_back "$job"; then
        echo "job $job will be started again ($((restarts + 1)) of at most $most times)" >&2
        sleep 60 # until the scheduler ends this script
    else
        echo "job $job could not be put back into the queue: submit it once more to go on" >&2
    fi
}

# How often PBS has started a job, this time included: `run_count` of OpenPBS, `start_count` of Torque.
pbs_starts() {
    local n
    n=$(qstat -f "$1" 2>/dev/null | sed -n 's/^ *\(run\|start\)_count = \([0-9]\{1,6\}\)$/\2/p' | head -n 1)
    echo "${n:-1}"
}

# Copies standard error, and leaves a word in the pipe when the first line comes that is saf's. Not by a
# second signal: bash, when it waits and two come at once, forgets one of them.
watch() {
    trap '' USR1
    local line
    while IFS= read -r line; do
        [ "$line" = "saf: started" ] || printf '%s\n' "$line"
        case $line in saf*) echo >&"$spoke"; break ;; esac
    done
    exec cat {spoke}>&-
}

# reach_by PROGRAM: mpirun reaches the other hosts through the scheduler's own PROGRAM, which takes a host
# and a command as ssh does, or through ssh where there is none. By its whole path: Open MPI looks for it
# on the other hosts as well, where PATH may be another.
reach_by() {
    local path
    if path=$(command -v "$1"); then export OMPI_MCA_plm_rsh_agent=$path; fi
}
