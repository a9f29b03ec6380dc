"""One job, many layouts, one hash: 24 prompts of unlike lengths, greedy and sampled, over ranks,
threads, batches, prefill chunks and instruction sets. `make test-exact`."""
import os
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import STORIES, Tap, job_file, saf, scratch  # noqa: E402

SHAPE = "5:128:4:2:32:256"
WORDS = ("the little red fox went over a hill to see what the old river had to say and then it "
         "rained for seven days while everybody slept under warm roofs").split()

# ranks, threads, sequences, micro-batch, chunk, kernels. 0: saf chooses.
TABLE = [
    (1, 1, 24, 24, 512, "scalar"), (1, 1, 1, 1, 512, "scalar"), (1, 2, 5, 5, 7, "scalar"),
    (2, 1, 8, 3, 64, "scalar"), (3, 1, 24, 8, 1, "scalar"),
    (1, 1, 24, 24, 512, "avx2"), (1, 2, 1, 1, 1, "avx2"), (2, 1, 24, 12, 7, "avx2"),
    (3, 2, 6, 2, 64, "avx2"), (4, 1, 24, 6, 512, "avx2"),
    (1, 1, 24, 24, 512, "avx512"), (2, 2, 24, 12, 64, "avx512"), (3, 1, 24, 8, 7, "avx512"),
    (1, 1, 24, 24, 512, "auto"), (1, 2, 24, 24, 512, "auto"), (1, 1, 1, 1, 512, "auto"),
    (1, 2, 1, 1, 1, "auto"), (1, 1, 24, 24, 1, "auto"), (1, 1, 24, 24, 7, "auto"),
    (1, 1, 24, 24, 64, "auto"), (1, 2, 7, 3, 64, "auto"), (2, 1, 24, 12, 512, "auto"),
    (2, 2, 24, 12, 1, "auto"), (2, 1, 1, 1, 7, "auto"), (2, 1, 24, 5, 64, "auto"),
    (3, 1, 24, 8, 512, "auto"), (3, 2, 4, 2, 7, "auto"), (3, 1, 24, 24, 64, "auto"),
    (4, 1, 24, 6, 512, "auto"), (4, 2, 24, 1, 64, "auto"), (4, 1, 1, 1, 1, "auto"),
    (4, 1, 24, 24, 7, "auto"), (0, 0, 0, 0, 0, "auto"),
]

JOB = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ prompts = "{folder}/prompts.jsonl"; }};
generate: {{ max_tokens = 16; temperature = 0.8; top_k = 40; top_p = 0.95; min_p = 0.02;
             seed = 7; logprobs = 2; logits = true; }};
output: {{ file = "{folder}/out.h5"; }};
"""

tap = Tap()


def write_prompts(folder):
    """Lengths from one word to a few hundred (beyond a segment of 256 positions); every third greedy."""
    with open(os.path.join(folder, "prompts.jsonl"), "w") as f:
        for i in range(24):
            n = (1, 2, 4, 8, 16, 50)[i % 6] + i // 2
            text = " ".join(WORDS[(i * 7 + k) % len(WORDS)] for k in range(n))
            extra = ', "temperature": 0.0' if i % 3 == 0 else f', "seed": {i}'
            f.write(f'{{"id": "p{i}", "prompt": "{text}"{extra}}}\n')


def check(folder, path, label, table, *settings):
    job = job_file(folder, JOB.format(model=path, folder=folder))
    hashes = set()
    for ranks, threads, sequences, micro_batch, chunk, kernels in table:
        name = (f"{label}: ranks {ranks or 'alone'}, threads {threads}, sequences {sequences}, "
                f"micro-batch {micro_batch}, chunk {chunk}, {kernels}")
        # Spinning threads help as long as each has a core of its own.
        policy = "active" if max(ranks, 1) * max(threads, 1) <= 2 else "passive"
        run = saf("run", job, "--quiet", f"layout.threads={threads}", f"run.sequences={sequences}",
                  f"run.micro_batch={micro_batch}", f"run.chunk={chunk}", *settings, ranks=ranks,
                  env={"SAF_KERNELS": kernels, "OMP_WAIT_POLICY": policy})
        if not tap.ok(run.returncode == 0, name + " runs", run.stderr):
            continue
        with h5py.File(os.path.join(folder, "out.h5")) as f:
            found = (f.attrs["tokens_sha256"], f.attrs["logits_sha256"])
            done = int((f["requests"]["state"] == b"done").sum()) if f["requests"].dtype["state"].kind == "S" \
                else sum(s in (b"done", "done") for s in f["requests"]["state"])
        hashes.add(found)
        tap.ok(len(hashes) == 1 and done == 24,
               f"{name}: {found[0][:12]} {found[1][:12]}", f"{done} of 24 done; hashes {hashes}")


with scratch() as folder:
    write_prompts(folder)
    for dtype in ("q8_0", "f32", "q4_k"):
        path = os.path.join(folder, f"{dtype}.gguf")
        made = saf("model", "make", path, "--arch", "qwen3", "--shape", SHAPE, "--type", dtype,
                   "--seed", 3, "--context", 2048)
        if tap.ok(made.returncode == 0, f"a {dtype} model is made", made.stderr):
            check(folder, path, dtype, TABLE if dtype == "q8_0" else TABLE[::3])
            if dtype == "q4_k":
                check(folder, path, "q4_k, q8_0 cache", TABLE[::4] + TABLE[9:14], "model.kv_type=q8_0")
    check(folder, STORIES, "stories260K", TABLE[1::3])
tap.exit()
