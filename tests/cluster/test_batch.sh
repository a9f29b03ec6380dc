#!/bin/bash
# The batch scripts for schedulers that cannot be had here, PBS and LSF: run by bash, with what the
# scheduler would set, over hosts on this machine.
# shellcheck disable=SC2317 # functions are called by ok and within
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
