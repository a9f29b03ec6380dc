#!/bin/bash
# The batch scripts for schedulers that cannot be had here, PBS and LSF: run by bash, with what the
# scheduler would set, over hosts on this machine.
# shellcheck disable=SC2317 # functions are called by ok and within
# shellcheck disable=SC2016,SC2030,SC2031 # texts that are expanded when they run; a PATH for one subshell
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
# shellcheck source=tests/cluster/job.sh
. tests/cluster/job.sh

# shellcheck disable=SC2016 # expanded when it runs
# A program of this name in the scheduler's place: takes a host and a command, and notes the host.
make_agent() {
    mkdir -p "$folder/bin"
    printf '#!/bin/sh\necho "$1" >>"%s"\nexec "%s" "$@"\n' "$folder/$1.hosts" "$RSH" >"$folder/bin/$1"
    chmod +x "$folder/bin/$1"
}

pbs() { # pbs WORD...: the script, from a folder that is not the checkout
    (cd / && PATH=$folder/bin:$PATH PBS_O_WORKDIR=$checkout PBS_NODEFILE=$folder/pbs.hosts \
        bash "$checkout/jobs/pbs/generate.pbs" "$@")
}

lsf() { # lsf [NAME=VALUE...]: the script, as standard input
    env "PATH=$folder/bin:$PATH" "$@" bash <jobs/lsf/generate.lsf
}

waits() { [ "$(grep -c '^saf' "$folder/stops.log" 2>/dev/null)" = 2 ]; }

[ "${1:-}" = inside ] || enter "hosts on this machine" tests/cluster/hosts 2
exec 2>&1
checkout=$PWD
prepare_job || tap_exit
make_agent pbs_tmrsh
make_agent blaunch

# Two chunks of two ranks, as PBS writes them.
printf 'h1\nh1\nh2\nh2\n' >"$folder/pbs.hosts"
ok "PBS: the job runs" pbs "${words[@]}" "output.file=$folder/pbs.h5"
check_results "$folder/pbs.h5" h1 h1 h2 h2
equal "PBS: its own program started the other host" "$(cat "$folder/pbs_tmrsh.hosts")" h2

# No words, but the name of a job file. Slots of cores, as LSF writes them.
{
    printf 'job = "generate";\nmodel: { path = "%s"; };\n' "$model"
    printf 'input: { prompts = "jobs/data/demo.txt"; };\ngenerate: { max_tokens = 12; };\n'
    printf 'output: { file = "%s/job.h5"; };\n' "$folder"
} >"$folder/job.cfg"
printf 'h1\nh1\nh1\nh1\nh2\nh2\nh2\nh2\n' >"$folder/lsf.hosts"
ok "LSF: the job runs" lsf "JOB=$folder/job.cfg" "LSB_DJOB_HOSTFILE=$folder/lsf.hosts"
check_results "$folder/job.h5" h1 h2
equal "LSF: its own program started the other host" "$(cat "$folder/blaunch.hosts")" h2
rm "$folder/job.h5"
ok "LSF: the job runs where hosts are in a variable" \
    lsf "JOB=$folder/job.cfg" RANKS=2 "LSB_HOSTS=h1 h1 h1 h2 h2 h2"
check_results "$folder/job.h5" h1 h1 h2 h2

# A job that is stopped for its time is put back into the queue, so often and where that is granted.
mkdir "$folder/pbs"
printf '#!/bin/sh\necho "$1" >>"%s"\n[ -e "%s" ]\n' "$folder/reruns" "$folder/granted" >"$folder/pbs/qrerun"
printf '#!/bin/sh\necho "Job Id: $2"\necho "    run_count = 3"\n' >"$folder/pbs/qstat"
printf '#!/bin/sh\n' >"$folder/pbs/sleep"
printf '#!/bin/sh\necho "saf: $*" >&2\nexit "$(cat "%s")"\n' "$folder/code" >"$folder/early"
chmod +x "$folder"/pbs/* "$folder/early"
echo 75 >"$folder/code" # a variable would not reach the other host
again() { # again NAME=VALUE...: a job that says its words and ends with that code
    (
        for setting; do export "${setting?}"; done
        export PATH=$folder/pbs:$PATH SAF=$folder/early PBS_JOBID=7.server
        pbs job.cfg output.file=x.h5
    ) >"$folder/again.log" 2>&1
}
again
equal "PBS: a job that may not be put back ends with 75" $? 75
ok "PBS: and says so" grep -q 'job 7.server could not be put back' "$folder/again.log"
touch "$folder/granted"
again PBS_WALLTIME=3600
equal "PBS: it is put back under its own number" "$(tail -n 1 "$folder/reruns")" 7.server
ok "PBS: and says so" grep -q 'started again (3 of at most 20 times)' "$folder/again.log"
ok "PBS: saf is told of the walltime" \
    grep -q 'saf: run job.cfg run.time_limit=3600s output.file=x.h5' "$folder/again.log"
again LIMIT=0:58:00 MAX_RESTARTS=2
equal "PBS: not more often than it may" "$(wc -l <"$folder/reruns")" 2
ok "PBS: a limit of the user's own" grep -q 'run.time_limit=0:58:00' "$folder/again.log"
echo 65 >"$folder/code"
again
equal "PBS: an error is an end" "$?, $(wc -l <"$folder/reruns")" "65, 2"

# A scheduler that signals every process of the job: from the first moment, and when the ranks wait.
cat >"$folder/stops" <<'END'
#!/bin/bash
trap 'exit 75' USR1
echo "saf: waiting to be asked to stop" >&2
sleep 60 & wait
END
chmod +x "$folder/stops"
setsid env "PATH=$folder/bin:$PATH" SAF="$folder/stops" LSB_DJOB_HOSTFILE="$folder/lsf.hosts" \
    bash jobs/lsf/generate.lsf >"$folder/stops.log" 2>&1 &
job=$!
ok "its ranks start" within 30 waits || cat "$folder/stops.log"
kill -USR1 -- "-$job"
wait $job
equal "SIGUSR1 to all its processes: it ends with its ranks' exit code" $? 75 || cat "$folder/stops.log"
ok "no process of it is left" within 5 no_process /bin/bash "$folder/stops"
tap_exit
