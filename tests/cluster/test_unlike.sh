#!/bin/bash
# Hosts with unlike memory, as a profile says: a model of which an equal split finds no room on the smaller one runs,
# and both hold what was planned.
# shellcheck disable=SC2317 # functions are called by ok
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
SAF=${BUILD:-build}/saf
PYTHON=${PYTHON:-/usr/bin/python3}
if [ "${1:-}" != inside ]; then
    enter "hosts on this machine" tests/cluster/hosts 2
fi
exec 2>&1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export SAF_PROFILES=$folder
over=(mpirun --hostfile "$HOSTFILE" --map-by slot -np 2 --bind-to none)
ok "a profile" "${over[@]}" "$SAF" detect --output "$folder/alike.h5" --folder "$folder" --quiet
# Less a tenth: 650 and 350 MB, of a model that takes 800.
ok "of unlike memory" "$PYTHON" - "$folder" <<'PY'
import shutil
import sys
import h5py
shutil.copy(sys.argv[1] + "/alike.h5", sys.argv[1] + "/unlike.h5")
with h5py.File(sys.argv[1] + "/unlike.h5", "r+") as f:
    hosts = f["hosts"][:]
    hosts["memory_bytes"] = [722e6 if host == b"h1" else 389e6 for host in hosts["host"]]
    f["hosts"][:] = hosts
PY
ok "a model" "$SAF" model make "$folder/m.gguf" --arch qwen3 --shape 28:1024:16:8:128:3072 --vocab-size 151936
seq 100 250 | tr '\n' ' ' >"$folder/ids.txt"
cat >"$folder/job.cfg" <<CFG
job = "generate";
model: { path = "$folder/m.gguf"; };
input: { tokens = "$folder/ids.txt"; };
generate: { max_tokens = 8; ignore_eos = true; };
output: { file = "$folder/out.h5"; };
CFG
run=("$SAF" run "$folder/job.cfg" --fresh --quiet)
printed=$("${over[@]}" "${run[@]}" "run.profile=$folder/unlike.h5" 'layout.stages=[14,14]' 2>&1)
says() { grep -q "$1" <<<"$printed" || { echo "$printed" && return 1; }; }
silent() { ! grep -q "$1" <<<"$printed" || { echo "$printed" && return 1; }; }
ok "halves are said not to fit" says "no layout of these ranks fits"
tokens() { "$PYTHON" -c 'import h5py, sys; print(h5py.File(sys.argv[1]).attrs["tokens_sha256"])' "$folder/out.h5"; }
halves=$(tokens)
printed=$("${over[@]}" "${run[@]}" "run.profile=$folder/unlike.h5" 2>&1 || echo "no layout: exit status $?")
ok "the job that saf cuts runs, and fits" silent "no layout"
equal "to the same tokens" "$(tokens)" "$halves"
ok "within both memories, and within a twentieth of the plan" "$PYTHON" - "$folder/out.h5" <<'PY'
import sys
import h5py
with h5py.File(sys.argv[1]) as f:
    ranks, plan = f["ranks"][:], f["plan"][:]
    print(f.attrs["layout"], f.attrs["plan_rates"])
for rank, planned in zip(ranks, plan):
    peak, room = rank["peak_memory_bytes"], 0.9 * (722e6 if rank["host"] == b"h1" else 389e6)
    print(rank["host"], rank["layer0"], rank["layer1"], peak, planned["memory_bytes"], room)
    assert planned["memory_bytes"] <= room and abs(planned["memory_bytes"] / peak - 1) < 0.05
PY
tap_exit
