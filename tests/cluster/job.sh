#!/bin/bash
# The job that the tests of this folder run: a small model, the prompts of the demo, and what must
# be in the results. To be sourced after tap.sh.
SAF=${BUILD:-build}/saf
PYTHON=${PYTHON:-/usr/bin/python3}
export SAF

# Makes the model and runs the job alone, on one rank. Leaves `folder`, which all hosts see, in
# `model` the file, alone in its folder, in `words` the words after `saf run`, and in `alone` the hash of
# the tokens.
prepare_job() {
    folder=$(mktemp -d)
    mkdir "$folder/models"
    model=$folder/models/model.gguf
    words=(jobs/generate.cfg "model.path=$model" input.prompts=jobs/data/demo.txt
        generate.max_tokens=12)
    ok "a model is made" "$SAF" model make "$model" --arch qwen3 \
        --shape 4:128:4:2:32:256 --vocab-size 1100 --type q8_0 --seed 1
    ok "the job runs alone" "$SAF" run "${words[@]}" "output.file=$folder/alone.h5" &&
        alone=$(fact "$folder/alone.h5" tokens_sha256)
}

# Prints facts of results FILE, a line each: root attributes, "states" (each once) or "hosts" (by rank).
fact() { # fact FILE NAME...
    "$PYTHON" -c '
import sys, h5py
def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)
with h5py.File(sys.argv[1]) as f:
    for name in sys.argv[2:]:
        if name == "states":
            print(*sorted({text(s) for s in f["requests"]["state"]}))
        elif name == "hosts":
            print(*(text(h) for h in f["ranks"]["host"]))
        else:
            print(text(f.attrs[name]))' "$@"
}

# Checks FILE, the results of the job on ranks of these hosts.
check_results() { # check_results FILE [HOST of each rank...]
    local file=$1 found
    shift
    [ $# -gt 0 ] || set -- h1 h2
    ok "there is a results file" test -f "$file" || return
    mapfile -t found < <(fact "$file" hosts exit_state states tokens_sha256)
    equal "a rank on each of $*" "${found[0]:-}" "$*"
    equal "the job is done" "${found[1]:-}" "done"
    equal "all requests are done" "${found[2]:-}" "done"
    equal "the same tokens as one rank alone" "${found[3]:-}" "$alone"
}
