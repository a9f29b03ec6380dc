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

submit() { # submit LOG WORD... of sbatch: prints the number of the job
    sbatch --parsable -o "$folder/$1" "${@:2}"
}

# Waits for a job and checks that all went well.
check_job() { # check_job NAME ID LOG
    ok "$1: the batch job ends" within 60 ended "$2" || scontrol show job "$2" | sed 's/^/# /'
    equal "$1: its state and exit code" \
        "$(job_field "$2" JobState) $(job_field "$2" ExitCode)" "COMPLETED 0:0"
    ok "$1: its log shows saf's first word and no error" log_is_clean "$folder/$3"
}

# What Slurm sends before the end of the walltime: again and again until the ranks are up.
check_usr1() { # check_usr1 NAME PROCESS WORD... of sbatch
    local name=$1 process=$2
    shift 2
    rm -f "$folder/usr1.log"
    id=$(MAX_RESTARTS=0 submit usr1.log "$@" "${words[@]}" generate.max_tokens=1000 "output.file=$folder/usr1.h5")
    ok "$name: a batch job starts" within 30 running "$process"
    ok "its script is sent SIGUSR1 until saf says its first word" within 30 usr1_until_first_word
    ok "it ends" within 60 ended "$id"
    equal "its state and exit code" \
        "$(job_field "$id" JobState) $(job_field "$id" ExitCode)" "FAILED 75:0" ||
        sed 's/^/# /' "$folder/usr1.log"
    ok "no process of it is left" within 5 no_job_process
}

# A job that takes two and a half times what a run of it may, and is put back into the queue by its
# script. What a run computes again, the tokens so far as a prompt, must be quick beside sampling them: one
# sequence, and vector instructions.
check_walltimes() {
    local long whole limit id
    ok "a larger model is made" "$SAF" model make "$folder/models/large.gguf" --arch qwen3 \
        --shape 12:512:8:4:64:1536 --type q8_0 --seed 1
    echo 'Once upon a time' >"$folder/one.txt"
    long=(jobs/generate.cfg "model.path=$folder/models/large.gguf" "input.prompts=$folder/one.txt"
        generate.max_tokens=2000 generate.ignore_eos=true layout.threads=1)
    ok "a longer job in one run" "$SAF" run "${long[@]}" "output.file=$folder/long.h5"
    mapfile -t whole < <(fact "$folder/long.h5" tokens_sha256 run_s)
    # Starting takes its part of every run.
    limit=$("$PYTHON" -c 'import sys; print(f"{int(float(sys.argv[1]) / 2.5) + 3}s")' "${whole[1]}")
    id=$(submit walltimes.log -N 2 -n 2 -c 1 jobs/slurm/generate.sbatch "${long[@]}" \
        layout.pipeline=2 "run.time_limit=$limit" "output.file=$folder/walltimes.h5")
    ok "a job of more than one walltime ends by itself" within 300 ended "$id"
    equal "its state and exit code" \
        "$(job_field "$id" JobState) $(job_field "$id" ExitCode)" "COMPLETED 0:0" ||
        sed 's/^/# /' "$folder/walltimes.log"
    ok "it was started again, twice at least" test "$(job_field "$id" Restarts)" -ge 2
    equal "the same tokens as in one run" "$(fact "$folder/walltimes.h5" tokens_sha256)" "${whole[0]}"
    equal "as often as it says" "$(fact "$folder/walltimes.h5" resumes)" "$(job_field "$id" Restarts)"
}

# Prints ids and token ids of the requests of some files.
requests() {
    "$PYTHON" -c '
import sys, h5py
for name in sys.argv[1:]:
    with h5py.File(name) as f:
        o = f["tokens/completion_offsets"][:]
        for row, a, b in zip(f["requests"], o, o[1:]):
            print(row["id"].decode(), *f["tokens/completion"][a:b])' "$@"
}

[ "${1:-}" = inside ] || enter "a Slurm of two nodes" tests/cluster/slurm 2
exec 2>&1
prepare_job || tap_exit
if [ -n "${SAF_TEST_WALLTIMES:-}" ]; then # by itself: Slurm takes its time between two runs
    check_walltimes
    ok "no process of the job is left" within 10 no_job_process
    tap_exit
fi
id=$(submit log -N 2 -n 2 -c 1 jobs/slurm/generate.sbatch "${words[@]}" "output.file=$folder/slurm.h5")
check_job generate "$id" log
check_results "$folder/slurm.h5"
ok "no process of the job is left" within 5 no_job_process

# The other scripts, all in the queue at once.
tasks=$(($(getconf _NPROCESSORS_ONLN) < 2 ? 1 : 2)) # ranks of a node, a core for each
one=$(submit one.log -c 1 jobs/slurm/one-node.sbatch "${words[@]}" "output.file=$folder/one.h5")
many=$(submit many.log -N 2 --ntasks-per-node=$tasks -c 1 jobs/slurm/many-nodes.sbatch \
    "${words[@]}" "output.file=$folder/many.h5")
array=$(OUT=$folder/shard submit array-%a.log --array=1-3 -c 1 jobs/slurm/array.sbatch "${words[@]}")
again=$(OUT=$folder/again SHARDS=10 submit again.log --array=7 -c 1 jobs/slurm/array.sbatch "${words[@]}")
direct=$(MPI=none submit srun.log -N 1 -c 1 jobs/slurm/srun.sbatch "${words[@]}" "output.file=$folder/srun.h5")
check_job one-node "$one" one.log
check_results "$folder/one.h5" "$(scontrol show job "$one" | sed -n 's/^ *NodeList=//p')"
check_job many-nodes "$many" many.log
# shellcheck disable=SC2046
check_results "$folder/many.h5" $(for host in h1 h2; do yes $host | head -n $tasks; done)
for k in 1 2 3; do check_job "array, task $k" "${array}_$k" array-$k.log; done
equal "the array's files together are the requests of one job" \
    "$(requests "$folder"/shard-?-of-3.h5)" "$(requests "$folder/alone.h5")"
check_job "array, one task once more" "${again}_7" again.log
equal "it did its part" "$(requests "$folder/again-07-of-10.h5")" "$(requests "$folder/alone.h5" | sed -n 5p)"
check_job "srun" "$direct" srun.log
check_results "$folder/srun.h5" "$(scontrol show job "$direct" | sed -n 's/^ *NodeList=//p')"
# The two lines in the comment of the example of a hostfile, as a batch script.
{
    echo '#!/bin/bash'
    sed -n 's/^#     //p' hostfiles/slurm.hosts |
        sed -e "s|build/saf|$SAF|; s|JOB.cfg|${words[*]} output.file=$folder/file.h5|" -e "s|job-[^ \"]*|$folder/&|"
} >"$folder/hostfile.sh"
id=$(submit hostfile.log -N 2 -n 2 -c 1 "$folder/hostfile.sh")
check_job "a hostfile inside an allocation" "$id" hostfile.log
check_results "$folder/file.h5"
if srun --mpi=pmix -N 2 -n 2 -c 1 "$SAF" run --help >"$folder/pmix.log" 2>&1; then
    id=$(submit pmix.log -N 2 -n 2 -c 1 jobs/slurm/srun.sbatch "${words[@]}" "output.file=$folder/pmix.h5")
    check_job "srun --mpi=pmix" "$id" pmix.log
    check_results "$folder/pmix.h5"
else
    skip "ranks started by srun --mpi=pmix" "this Slurm cannot start this MPI: $(grep -m 1 error "$folder/pmix.log")"
fi
ok "no process of these jobs is left" within 10 no_job_process

# In saf's place, something that ends as asked: USR1 reaches every rank, and their code the scheduler.
cat >"$folder/stops" <<'END'
#!/bin/bash
trap 'exit 75' USR1
echo "saf: waiting to be asked to stop" >&2
sleep 60 & wait
END
chmod +x "$folder/stops"
both_wait() { [ "$(grep -c '^saf' "$folder/stops.log" 2>/dev/null)" = 2 ]; }
for script in generate srun; do
    id=$(SAF=$folder/stops MPI=none MAX_RESTARTS=0 submit stops.log -N 2 -n 2 -c 1 jobs/slurm/$script.sbatch)
    ok "$script: its ranks start" within 30 both_wait
    ok "they are sent SIGUSR1" scancel --batch --signal=USR1 "$id"
    ok "they end" within 30 ended "$id"
    equal "with their own exit code" "$(job_field "$id" ExitCode)" 75:0 || sed 's/^/# /' "$folder/stops.log"
    rm -f "$folder/stops.log"
done
check_usr1 "mpirun" mpirun -N 2 -n 2 -c 1 jobs/slurm/generate.sbatch
rm -f "$folder"/usr1.h5*
MPI=none check_usr1 "srun" srun -N 1 -n 1 -c 1 jobs/slurm/srun.sbatch
ok "no process of these jobs is left" within 10 no_job_process
tap_exit
