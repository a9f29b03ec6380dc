#!/bin/bash
# A batch job of two ranks under a real Slurm of two nodes.
# shellcheck disable=SC2317 # functions are called by ok and within
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh

job_field() { # job_field ID NAME: what `scontrol show job` says
    scontrol show job "$1" | grep -oE "\b$2=[^ ]*" | head -n 1 | cut -d= -f2-
}

ended() {
    case $(job_field "$1" JobState) in
    PENDING | RUNNING | COMPLETING | CONFIGURING) return 1 ;;
    esac
}

[ "${1:-}" = inside ] || enter "a Slurm of two nodes" tests/cluster/slurm 2
exec 2>&1

folder=$(mktemp -d)
cat >"$folder/job" <<'END'
#!/bin/bash
mpirun sh -c 'echo "$OMPI_COMM_WORLD_RANK $(hostname)"'
END
id=$(sbatch --parsable -N 2 -n 2 -t 5 -o "$folder/log" "$folder/job")
ok "the job ends" within 60 ended "$id"
equal "its state is COMPLETED" "$(job_field "$id" JobState) $(job_field "$id" ExitCode)" "COMPLETED 0:0"
equal "a rank on each node" "$(sort "$folder/log" | paste -s)" "$(printf '0 h1\t1 h2')"
tap_exit
