#!/bin/bash
# Hosts with unlike memory: a model of which an equal split finds no room on the smaller one runs, and both hold what was
# planned. The memory is a limit of a control group for each host, and the profile is what `saf detect` finds there: a
# process that takes more is killed, as one half of the model is. What a group reads from files counts too, but the kernel takes
# such pages away before it kills; that is relied on here: what a host holds and the file pages that it is packed from
# are more than its group may have. Where no such groups can be made, a profile is edited to say so, and nothing is enforced.
# shellcheck disable=SC2317 # functions are called by ok
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
SAF=$(realpath "${BUILD:-build}/saf")
PYTHON=${PYTHON:-/usr/bin/python3}
# Less a tenth: 650 and 350 MB, of a model that takes 800.
MEMORY=722000000,389000000

# Outside of the limits: the model, the job, and its tokens. The file's pages leave the cache, so that the group that
# reads them is the one that they count in.
prepare() {
    ok "a model" "$SAF" model make "$folder/m.gguf" --arch qwen3 --shape 28:1024:16:8:128:3072 --vocab-size 151936 || return
    seq 100 250 | tr '\n' ' ' >"$folder/ids.txt"
    cat >"$folder/job.cfg" <<CFG
job = "generate";
model: { path = "$folder/m.gguf"; };
input: { tokens = "$folder/ids.txt"; };
generate: { max_tokens = 8; ignore_eos = true; };
output: { file = "$folder/out.h5"; };
CFG
    ok "the job runs alone, without limits" "$SAF" run "$folder/job.cfg" --fresh --quiet output.file="$folder/alone.h5"
    sync "$folder/m.gguf" && dd if="$folder/m.gguf" iflag=nocache count=0 status=none
}

if [ "${1:-}" != inside ]; then
    folder=$(mktemp -d) || exit 1
    trap 'rm -rf "$folder"' EXIT
    export folder SAF_PROFILES=$folder
    hosts=(tests/cluster/hosts 2 --memory "$MEMORY")
    said=$("${hosts[@]}" -- true 2>&1) && prepare
    if [ -n "$said" ] && tests/cluster/hosts 2 -- true 2>/dev/null; then
        skip "limits of control groups" "$said"
        hosts=(tests/cluster/hosts 2)
        prepare
    fi
    enter "hosts on this machine" "${hosts[@]}"
fi
exec 2>&1
over=(mpirun --hostfile "$HOSTFILE" --map-by slot -np 2 --bind-to none)
run=(timeout -k 5 300 "${over[@]}" "$SAF" run "$folder/job.cfg" --fresh --quiet "run.profile=$folder/unlike.h5")
says() { grep -q "$1" <<<"$printed" || { echo "$printed" && return 1; }; }
silent() { ! grep -q "$1" <<<"$printed" || { echo "$printed" && return 1; }; }
tokens() { "$PYTHON" -c 'import h5py, sys; print(h5py.File(sys.argv[1]).attrs["tokens_sha256"])' "$1"; }
differ() { [ "$1" != "$2" ] || { echo "both are $1" && return 1; }; }
killed() { # processes of h1 and of h2 that their groups' limits ended
    local host
    for host in h1 h2; do
        cat "$MEMORY_GROUP-$host"/memory.{events,oom_control} 2>/dev/null | sed -n 's/^oom_kill //p'
    done | paste -s -d ' '
}

ok "a profile" "${over[@]}" "$SAF" detect --output "$folder/unlike.h5" --folder "$folder" --quiet
if [ -n "${MEMORY_GROUP:-}" ]; then
    ok "has the limits" "$PYTHON" - "$folder/unlike.h5" "$MEMORY" <<'PY'
import sys
import h5py
with h5py.File(sys.argv[1]) as f:
    got = {row["host"].decode(): int(row["memory_limit_bytes"]) for row in f["hosts"][:]}
expected = dict(zip(("h1", "h2"), map(int, sys.argv[2].split(","))))
print(got, expected)
assert set(got) == set(expected) and all(0 <= expected[h] - got[h] < 1 << 16 for h in got)  # whole pages
PY
    printed=$("$RSH" h2 "$SAF" plan "$folder/job.cfg" 2>&1)
    equal "for one host alone the plan knows its limit: exit status" $? 1
    equal "and measuring was within it" "$(killed)" "0 0"
else
    ok "of unlike memory" "$PYTHON" - "$folder/unlike.h5" "$MEMORY" <<'PY'
import sys
import h5py
memory = dict(zip((b"h1", b"h2"), map(int, sys.argv[2].split(","))))
with h5py.File(sys.argv[1], "r+") as f:
    hosts = f["hosts"][:]
    hosts["memory_bytes"] = [memory[host] for host in hosts["host"]]
    f["hosts"][:] = hosts
PY
fi
printed=$("${run[@]}" 'layout.stages=[14,14]' 2>&1)
status=$?
ok "halves are said not to fit" says "no layout of these ranks fits"
if [ -n "${MEMORY_GROUP:-}" ]; then
    ok "and do not: the job ends" differ $status 0
    before=$(killed)
    equal "because the second rank is killed" "$before" "0 1"
    rm -f "$folder/out.h5"
else
    equal "to the same tokens as alone" "$(tokens "$folder/out.h5")" "$(tokens "$folder/alone.h5")"
fi
printed=$("${run[@]}" 2>&1 || echo "exit status $?")
ok "the job that saf cuts runs" silent "exit status"
ok "and fits" silent "no layout"
[ -z "${MEMORY_GROUP:-}" ] || equal "without one process more being killed" "$(killed)" "$before"
equal "to the same tokens" "$(tokens "$folder/out.h5")" "$(tokens "$folder/alone.h5")"
ok "within both memories, and within a twentieth of the plan" "$PYTHON" - "$folder" <<'PY'
import sys
import h5py
with h5py.File(sys.argv[1] + "/unlike.h5") as f:
    memory = {row["host"]: min([row["memory_bytes"]] + [row["memory_limit_bytes"]] * (row["memory_limit_bytes"] > 0))
              for row in f["hosts"][:]}
with h5py.File(sys.argv[1] + "/out.h5") as f:
    ranks, plan = f["ranks"][:], f["plan"][:]
    print(f.attrs["layout"], f.attrs["plan_rates"])
assert {rank["host"] for rank in ranks} == set(memory)
for rank, planned in zip(ranks, plan):
    peak, there = int(rank["peak_memory_bytes"]), int(memory[rank["host"]])
    print(rank["host"], rank["layer0"], rank["layer1"], "peak", peak, "plan", planned["memory_bytes"], "of", there)
    assert peak < there and planned["memory_bytes"] <= 0.9 * there and abs(planned["memory_bytes"] / peak - 1) < 0.05
PY
tap_exit
