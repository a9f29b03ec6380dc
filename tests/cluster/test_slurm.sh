#!/bin/bash
# A batch job of two ranks under a real Slurm of two nodes.
# shellcheck disable=SC2317 # functions are called by ok and within
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
# shellcheck source=tests/cluster/job.sh
. tests/cluster/job.sh

job_field() { # job_field ID NAME: what `scontrol show job` says
    scontrol show job "$1" | grep -oE "\b$2=[^ ]*" | head -n 1 | cut -d= -f2-
}

ended() {
    case $(job_field "$1" JobState) in
    PENDING | CONFIGURING | RUNNING | COMPLETING | '') return 1 ;;
    esac
}

log_is_clean() {
    if ! grep -q '^saf' "$1" ||
        grep -qaiE '\b(errors?|warning|abort(ed)?|killed|terminated|refused|denied|no such)\b' "$1"; then
        cat "$1"
        return 1
    fi
}

running() { grep -qx "$1" /proc/[0-9]*/comm 2>/dev/null; }

# Slurm starts an `orted` on the second node; each step has its `slurmstepd`.
no_job_process() {
    ! grep -xE 'saf|mpirun|orted|srun|slurmstepd' /proc/[0-9]*/comm 2>/dev/null
}

usr1_until_first_word() {
    scancel --batch --signal=USR1 "$id"
    grep -qs '^saf' "$folder/usr1.log"
}

[ "${1:-}" = inside ] || enter "a Slurm of two nodes" tests/cluster/slurm 2
exec 2>&1
prepare_job || tap_exit
id=$(sbatch --parsable -N 2 -n 2 -c 1 -o "$folder/log" jobs/slurm/generate.sbatch \
    "${words[@]}" "output.file=$folder/slurm.h5")
ok "the batch job ends" within 60 ended "$id" || scontrol show job "$id" | sed 's/^/# /'
equal "its state and exit code" "$(job_field "$id" JobState) $(job_field "$id" ExitCode)" "COMPLETED 0:0"
ok "its log shows saf's first word and no error" log_is_clean "$folder/log"
check_results "$folder/slurm.h5"
ok "no process of the job is left" within 5 no_job_process

# What Slurm sends before the end of the walltime: again and again until the ranks are up, and once
# while they work.
id=$(sbatch --parsable -N 2 -n 2 -c 1 -o "$folder/usr1.log" jobs/slurm/generate.sbatch \
    "${words[@]}" generate.max_tokens=1000 "output.file=$folder/usr1.h5")
ok "another batch job starts" within 30 running mpirun
ok "its script is sent SIGUSR1 until saf says its first word" within 30 usr1_until_first_word
ok "and once more" scancel --batch --signal=USR1 "$id"
ok "it ends" within 60 ended "$id"
equal "its state and exit code" "$(job_field "$id" JobState) $(job_field "$id" ExitCode)" "COMPLETED 0:0" ||
    sed 's/^/# /' "$folder/usr1.log"
ok "no process of it is left" within 5 no_job_process
tap_exit
