"""A model of more than 600 MB over 1 to 3 ranks: the weight bytes of the ranks add up to the file's,
and no rank takes more memory than its slice, its cache and 64 MiB."""
import json
import os
import subprocess
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, SAF, Tap, job_file, saf, scratch, watched  # noqa: E402

tap = Tap()
JOB = """job = "generate";
model: {{ path = "{path}"; }};
input: {{ prompt = "One morning"; }};
generate: {{ max_tokens = 8; ignore_eos = true; }};
layout: {{ threads = 1; }};
output: {{ file = "{folder}/out.h5"; }};
"""


def run_given(ranks, folder, job):
    """A run in which only rank 0 starts in the folder of the model and so finds it."""
    nowhere = os.path.join(folder, "nowhere")
    os.makedirs(nowhere, exist_ok=True)
    line = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    for place, n in ((folder, 1), (nowhere, ranks - 1)):
        line += ["-np", str(n), "-wdir", place, SAF, "run", job, "--quiet", "model.path=model.gguf", ":"]
    return subprocess.run(line[:-1], env=ENV, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)


with scratch() as folder:
    for tied in (False, True):
        path = os.path.join(folder, "model.gguf")
        made = saf("model", "make", path, "--arch", "qwen3", "--shape", "14:1024:16:8:128:3072",
                   "--type", "q8_0", "--vocab-size", 151936 if tied else 202048,
                   *(["--tied"] if tied else []), timeout=300)
        if not tap.ok(made.returncode == 0, f"a model is made, tied {tied}", made.stderr):
            break
        info = json.loads(saf("model", "info", path, "--json").stdout)
        file_bytes = info["tensor_bytes"]
        if not tied:
            tap.ok(os.path.getsize(path) > 600e6, "it is larger than 600 MB")
        job = job_file(folder, JOB.format(path=path, folder=folder))
        for ranks, given in ((1, False), (2, False), (3, False), (3, True)):
            label = f"tied {tied}, {ranks} ranks" + (", rank 0 alone has the file" if given else "")
            run = run_given(ranks, folder, job) if given else saf("run", job, "--quiet",
                                                                  ranks=ranks, timeout=300)
            if not tap.ok(run.returncode == 0, label + ": runs", run.stderr):
                continue
            with h5py.File(os.path.join(folder, "out.h5")) as f:
                table = f["ranks"][...]
            total = int(table["weight_bytes"].sum()) - int(table["replicated_bytes"].sum())
            tap.equal(total, file_bytes, label + ": weight bytes add up")
            named = [r["replicated"].decode() for r in table]
            tap.equal([bool(name) for name in named], [bool(r["replicated_bytes"]) for r in table],
                      label + ": what another counts has names")
            tap.equal(named[-1].startswith("token_embd.weight") if table["layer0"][-1] else tied,
                      tied, label + ": a later stage names the embedding that it holds")
            if watched():
                tap.skip(label + ": memory", "the address sanitizer takes memory itself")
                continue
            for r in table:
                limit = int(r["weight_bytes"]) + int(r["memory_kv_bytes"]) + (64 << 20)
                tap.ok(int(r["peak_memory_bytes"]) <= limit,
                       f"{label}: rank {r['rank']} takes "
                       f"{(int(r['peak_memory_bytes']) - limit) / 2**20 + 64:.0f} MiB beyond its "
                       "slice and cache", f"peak {r['peak_memory_bytes']}, limit {limit}")
        os.remove(path)
tap.exit()
