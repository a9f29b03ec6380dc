#!/bin/bash
# The ways to spread a model over two and three hosts, of which only the first has the file: tokens
# and logits are those of one rank alone.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
# shellcheck source=tests/cluster/job.sh
. tests/cluster/job.sh

# Prints three lines on a results file: the ranks' hosts; what each rank has, as replica:layers:heads,
# the first and the one after the last; states of the requests and hashes.
facts() { # facts FILE
    "$PYTHON" -c 'import sys, h5py
with h5py.File(sys.argv[1]) as f:
    ranks = f["ranks"][...]
    print(*(r["host"].decode() for r in ranks))
    print(*("%d:%d-%d:%d-%d" % tuple(r[["replica", "layer0", "layer1", "head0", "head1"]]) for r in ranks))
    print(*sorted({s.decode() for s in f["requests"]["state"]}), f.attrs["tokens_sha256"], f.attrs.get("logits_sha256"))' "$1"
}

# Runs the job over ranks on these hosts, in order, and checks who did what.
over() { # over "HOST of each rank..." "WHAT each rank has..." SETTING...
    local hosts=$1 parts=$2 file=$folder/out.h5 host line=() found
    shift 2
    for host in $hosts; do
        line+=(: -np 1 --host "$host:8" "$SAF" run --fresh "${words[@]}" "output.file=$file" "$@")
    done
    rm -f "$file"
    ok "$* over $hosts" mpirun "${line[@]:1}" || return
    mapfile -t found < <(facts "$file")
    equal "its ranks are there" "${found[0]}" "$hosts"
    equal "each has its part" "${found[1]}" "$parts"
    equal "the same tokens and logits as one rank alone" "${found[2]}" "$alone"
}

[ "${1:-}" = inside ] || enter "hosts on this machine" tests/cluster/hosts 3
exec 2>&1
prepare_job || tap_exit
words+=(generate.logits=true generate.temperature=0.7)
ok "it keeps logits" "$SAF" run --fresh "${words[@]}" "output.file=$folder/alone.h5"
alone=$(facts "$folder/alone.h5" | tail -n 1)
for host in h2 h3; do
    ok "the model is hidden from $host" "$RSH" $host mount -t tmpfs none "${model%/*}"
done
# Four layers, four heads, of which two and two share keys and values.
quarters="0:0-4:0-1 0:0-4:1-2 0:0-4:2-3 0:0-4:3-4"
squares="0:0-2:0-2 0:0-2:2-4 0:2-4:0-2 0:2-4:2-4"
others="1:0-2:0-2 1:0-2:2-4 1:2-4:0-2 1:2-4:2-4"
over "h1 h2" "0:0-4:0-2 0:0-4:2-4" layout.tensor=2
over "h1 h2" "0:0-4:0-4 0:0-4:4-4" layout.tensor=2 "layout.share=[3,1]"
over "h1 h1 h2 h2" "$quarters" layout.tensor=4
over "h1 h1 h2 h2" "$squares" layout.pipeline=2 layout.tensor=2
over "h1 h2 h1 h2" "$squares" layout.pipeline=2 layout.tensor=2
over "h1 h2 h2" "0:0-2:0-4 0:2-3:0-4 0:3-4:0-4" layout.pipeline=3 "layout.share=[2,2]"
over "h1 h2 h3" "0:0-4:0-1 0:0-4:1-2 0:0-4:2-4" layout.tensor=3
over "h1 h2 h3" "0:0-4:0-1 0:0-4:1-3 0:0-4:3-4" layout.tensor=3 "layout.share=[1,2,1]"
over "h1 h2 h3" "0:0-4:0-4 1:0-4:0-4 2:0-4:0-4" layout.replicas=3
over "h1 h2 h3 h2" "0:0-4:0-2 0:0-4:2-4 1:0-4:0-2 1:0-4:2-4" layout.replicas=2 layout.tensor=2
over "h1 h1 h2 h2 h2 h3 h3 h1" "$squares $others" layout.replicas=2 \
    layout.pipeline=2 layout.tensor=2
# Of which nobody needs all logits of a row, or only finds out.
words+=(generate.logits=false generate.logprobs=2)
for drawn in "generate.top_k=20 generate.repeat_penalty=1.2" generate.top_p=0.9; do
    read -ra more <<<"$drawn"
    ok "it draws with $drawn" "$SAF" run --fresh "${words[@]}" "${more[@]}" "output.file=$folder/alone.h5"
    alone=$(facts "$folder/alone.h5" | tail -n 1)
    over "h1 h1 h2 h2" "$quarters" layout.tensor=4 "${more[@]}"
    over "h1 h2 h3" "0:0-4:0-1 0:0-4:1-3 0:0-4:3-4" layout.tensor=3 "layout.share=[1,2,1]" "${more[@]}"
done
tap_exit
