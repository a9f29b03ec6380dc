#!/bin/bash
# The job that the tests of this folder run: a small model, the prompts of the demo, and what must
# be in the results. To be sourced after tap.sh.
SAF=${BUILD:-build}/saf
PYTHON=${PYTHON:-/usr/bin/python3}
export SAF

# Makes the model and runs the job alone, on one rank. Leaves `folder`, which all hosts see, in
# `model` the file, alone in its folder, and in `words` the words after `saf run`.
prepare_job() {
    folder=$(mktemp -d)
    mkdir "$folder/models"
    model=$folder/models/model.gguf
    words=(jobs/generate.cfg "model.path=$model" input.prompts=jobs/data/demo.txt
        generate.max_tokens=12)
    ok "a model is made" "$SAF" model make "$model" --arch qwen3 \
        --shape 4:128:4:2:32:256 --type q8_0 --seed 1
    ok "the job runs alone" "$SAF" run "${words[@]}" "output.file=$folder/alone.h5"
}

# Prints one fact of results FILE: a root attribute, or "states" (each once) or "hosts" (by rank).
fact() { # fact FILE NAME
    "$PYTHON" -c '
import sys, h5py
def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)
file, name = sys.argv[1:]
with h5py.File(file) as f:
    if name == "states":
        print(*sorted({text(s) for s in f["requests"]["state"]}))
    elif name == "hosts":
        print(*(text(h) for h in f["ranks"]["host"]))
    else:
        print(text(f.attrs[name]))' "$1" "$2"
}

# Checks FILE, the results of the job on ranks of these hosts.
check_results() { # check_results FILE [HOST of each rank...]
    local file=$1
    shift
    [ $# -gt 0 ] || set -- h1 h2
    set -- "$file" "$*"
    ok "there is a results file" test -f "$1" || return
    equal "a rank on each of $2" "$(fact "$1" hosts)" "$2"
    equal "the job is done" "$(fact "$1" exit_state)" "done"
    equal "all requests are done" "$(fact "$1" states)" "done"
    equal "the same tokens as one rank alone" \
        "$(fact "$1" tokens_sha256)" "$(fact "$folder/alone.h5" tokens_sha256)"
}
