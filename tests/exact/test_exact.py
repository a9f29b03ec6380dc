"""One job, many layouts, one hash: 24 prompts of unlike lengths, greedy and sampled, over replicas,
stages, parts, uneven shares, threads, batches, prefill chunks and instruction sets. `make test` runs
those that differ most; `make test-exact` (ALL=1) runs them all."""
import hashlib
import os
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import STORIES, Tap, job_file, saf, scratch  # noqa: E402

ALL = os.environ.get("ALL") == "1"
SHAPE = "5:128:4:2:32:256"
VOCABULARY = 5 * 512 + 52  # it is cut between two of each 512
WORDS = ("the little red fox went over a hill to see what the old river had to say and then it "
         "rained for seven days while everybody slept under warm roofs").split()

# ranks, threads, sequences, micro-batch, chunk, kernels. 0: saf chooses.
TABLE = [
    (1, 1, 24, 24, 512, "scalar"), (1, 2, 5, 5, 7, "scalar"), (3, 1, 24, 8, 1, "scalar"),
    (1, 2, 1, 1, 1, "avx2"), (2, 1, 24, 12, 7, "avx2"), (4, 1, 24, 6, 512, "avx2"),
    (1, 1, 24, 24, 512, "avx512"), (2, 2, 24, 12, 64, "avx512"), (3, 1, 24, 8, 7, "avx512"),
    (1, 1, 24, 24, 512, "auto"), (1, 2, 16, 16, 512, "auto"), (1, 1, 1, 1, 512, "auto"),
    (1, 1, 24, 24, 1, "auto"), (1, 1, 24, 24, 7, "auto"), (1, 2, 7, 3, 64, "auto"),
    (2, 1, 24, 12, 512, "auto"), (2, 2, 24, 12, 1, "auto"), (2, 1, 1, 1, 7, "auto"),
    (3, 1, 24, 8, 512, "auto"), (3, 2, 4, 2, 7, "auto"), (3, 1, 24, 15, 64, "auto"),
    (4, 1, 24, 6, 512, "auto"), (4, 2, 24, 1, 64, "auto"), (4, 1, 24, 24, 7, "auto"),
    (0, 0, 0, 0, 0, "auto"),
]
MORE = [
    (1, 1, 1, 1, 512, "scalar"), (2, 1, 8, 3, 64, "scalar"), (1, 1, 24, 24, 512, "avx2"),
    (3, 2, 6, 2, 64, "avx2"), (1, 2, 1, 1, 1, "auto"), (1, 1, 24, 24, 64, "auto"),
    (2, 1, 24, 5, 64, "auto"), (4, 1, 1, 1, 1, "auto"),
]

# Grids: replicas, pipeline, tensor, threads, sequences, micro-batch, chunk, kernels, shares of the
# ranks. The model has 2 key heads: most parts share one with another.
GRID_SHAPE = "5:256:8:2:32:512"
GRIDS = [
    (1, 1, 2, 2, 8, 3, 7, "auto", ""), (1, 1, 2, 1, 24, 24, 64, "avx2", "[3, 1]"),
    (1, 1, 3, 1, 24, 24, 7, "avx2", "[1, 2, 3]"), (1, 1, 4, 1, 1, 1, 512, "auto", ""),
    (1, 2, 2, 1, 8, 4, 1, "avx512", "[2, 1, 1, 1]"), (1, 1, 5, 1, 24, 24, 512, "auto", ""),
    (1, 5, 1, 1, 24, 6, 64, "auto", ""), (1, 3, 2, 1, 24, 8, 64, "auto", ""),
    (1, 2, 3, 1, 24, 12, 7, "auto", ""), (1, 1, 7, 1, 24, 24, 64, "auto", ""),
    (1, 1, 8, 1, 16, 16, 512, "auto", ""),
    (1, 2, 4, 1, 24, 12, 512, "auto", "[4, 3, 2, 2, 2, 1, 1, 1]"),
    (2, 1, 1, 1, 24, 12, 64, "auto", ""), (3, 1, 1, 1, 7, 7, 7, "auto", ""),
    (2, 1, 2, 1, 24, 12, 512, "auto", ""), (2, 2, 1, 1, 12, 3, 64, "auto", ""),
    (2, 1, 3, 1, 12, 12, 64, "auto", ""), (7, 1, 1, 1, 2, 2, 64, "auto", ""),
    (2, 2, 2, 1, 24, 6, 64, "auto", ""), (8, 1, 1, 1, 3, 3, 512, "auto", ""),
]
MORE_GRIDS = [
    (1, 1, 2, 1, 24, 24, 512, "auto", ""), (1, 1, 3, 1, 24, 8, 64, "auto", ""),
    (1, 2, 2, 1, 24, 12, 64, "auto", ""), (1, 1, 8, 1, 5, 5, 7, "avx2", ""),
    (1, 4, 2, 1, 24, 6, 64, "auto", ""), (2, 3, 1, 1, 24, 4, 64, "auto", ""),
    (4, 1, 2, 1, 6, 6, 64, "auto", ""), (1, 1, 3, 1, 24, 24, 7, "scalar", "[1, 2, 3]"),
]

JOB = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ prompts = "{folder}/prompts.jsonl"; }};
generate: {{ max_tokens = 16; temperature = 0.8; top_k = 40; top_p = 0.95; min_p = 0.02;
             seed = 7; logprobs = 2; logits = true; }};
output: {{ file = "{folder}/out.h5"; }};
"""
# Of these nobody needs all logits of a row: ranks tell each other what their parts come to.
GREEDY = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ prompts = "{folder}/greedy.jsonl"; }};
generate: {{ max_tokens = 16; temperature = 0.0; }};
output: {{ file = "{folder}/out.h5"; }};
"""
# Nor of most of these, or not at once: what is drawn from the likeliest tokens, with penalties and without.
DRAWN = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ prompts = "{folder}/drawn.jsonl"; }};
generate: {{ max_tokens = 16; temperature = 0.9; top_k = 40; top_p = 0.98; repeat_penalty = 1.1; seed = 7; logprobs = 3; }};
output: {{ file = "{folder}/out.h5"; }};
"""
DRAWING = ["", ', "top_k": 253, "temperature": 2.0', ', "repeat_penalty": 0.8', ', "repeat_penalty": 1.0, "top_k": 3',
           ', "temperature": 0.0', ', "repeat_penalty": 1.0, "min_p": 0.05', ', "top_k": 120',
           ', "top_k": 0, "repeat_penalty": 1.0, "top_p": 0.02', ', "top_k": 0, "repeat_penalty": 1.0, "top_p": 0.9',
           ', "top_k": 0, "repeat_penalty": 1.0, "top_p": 0.8']  # the last two take more than the candidates
SCORE = """job = "score";
model: {{ path = "{model}"; }};
input: {{ texts = "{folder}/scored.jsonl"; }};
output: {{ file = "{folder}/out.h5"; }};
"""

WHOLE = "generate.logits=true"  # of a job that keeps none

tap = Tap()


def write_prompts(folder):
    """Lengths from one word to a few hundred (beyond a segment of 256 positions); every third greedy."""
    names = (os.path.join(folder, name + ".jsonl") for name in ("prompts", "greedy", "scored", "drawn"))
    with (open(next(names), "w") as f, open(next(names), "w") as greedy, open(next(names), "w") as scored,
          open(next(names), "w") as drawn):
        for i in range(24):
            n = (1, 2, 4, 8, 16, 50)[i % 6] + i // 2
            text = " ".join(WORDS[(i * 7 + k) % len(WORDS)] for k in range(n))
            extra = ', "temperature": 0.0' if i % 3 == 0 else f', "seed": {i}'
            line = f'{{"id": "p{i}", "prompt": "{text}"'
            f.write(line + extra + "}\n")
            greedy.write(line + (', "temperature": 0.8' if i % 8 == 7 else "") + "}\n")  # a few have company
            scored.write(line.replace("prompt", "text") + "}\n")
            drawn.write(line + DRAWING[i % len(DRAWING)] + "}\n")


class Checker:
    """Runs of one job, all of which must say the same."""

    def __init__(self, folder, path, label, *settings, job=JOB):
        self.folder, self.label, self.settings, self.hashes = folder, label, settings, set()
        self.job = job_file(folder, job.format(model=path, folder=folder))

    def run(self, name, ranks, threads, sequences, micro_batch, chunk, kernels, *settings):
        name = (f"{self.label}: {name}, threads {threads}, sequences {sequences}, micro-batch {micro_batch}, "
                f"chunk {chunk}, {kernels}")
        # Spinning threads help as long as each has a core of its own, and no other test runs.
        policy = "active" if ALL and max(ranks, 1) * max(threads, 1) <= 2 else "passive"
        run = saf("run", self.job, "--quiet", f"layout.threads={threads}", f"run.sequences={sequences}",
                  f"run.micro_batch={micro_batch}", f"run.chunk={chunk}", *self.settings, *settings,
                  ranks=ranks if ranks > 1 or ALL else 0, timeout=300, env={"SAF_KERNELS": kernels, "OMP_WAIT_POLICY": policy})
        if not tap.ok(run.returncode == 0, name + " runs", run.stderr):
            return
        with h5py.File(os.path.join(self.folder, "out.h5")) as f:
            tables = [f["logprobs"][x][:].tobytes() for x in ("values", "top_ids", "top_values") if x in f["logprobs"]]
            values = hashlib.sha256(b"".join(tables)).hexdigest()
            kept = values if WHOLE in settings else f.attrs.get("logits_sha256", values)
            found = (f.attrs["tokens_sha256"], kept, values)
            done = sum(s in (b"done", "done") for s in f["requests"]["state"])
        self.hashes.add(found)
        tap.ok(len(self.hashes) == 1 and done == 24,
               f"{name}: {found[0][:12]} {found[1][:12]}", f"{done} of 24 done; hashes {self.hashes}")


def check(folder, path, label, table, *settings):
    checker = Checker(folder, path, label, *settings)
    for ranks, *schedule in table:
        checker.run(f"ranks {ranks or 'alone'}", ranks, *schedule, f"layout.pipeline={max(ranks, 1)}")


def check_grids(folder, path, label, table, *settings, job=JOB):
    checker = Checker(folder, path, label, *settings, job=job)
    checker.run("alone", 0, 1, 24, 24, 512, "auto")
    if job == DRAWN:
        checker.run("from whole rows", 0, 2, 24, 24, 512, "auto", WHOLE)
    for replicas, pipeline, tensor, *schedule, share in table:
        grid = [f"layout.replicas={replicas}", f"layout.pipeline={pipeline}", f"layout.tensor={tensor}"]
        name = f"replicas {replicas} x pipeline {pipeline} x tensor {tensor}"
        if share:
            grid.append(f"layout.share={share}")
            name += f", shares {share}"
        checker.run(name, replicas * pipeline * tensor, *schedule, *grid)


def make(folder, shape, dtype):
    path = os.path.join(folder, f"{shape.replace(':', '-')}-{dtype}.gguf")
    made = saf("model", "make", path, "--arch", "qwen3", "--shape", shape, "--type", dtype,
               "--seed", 3, "--context", 2048, "--vocab-size", VOCABULARY)
    return path if tap.ok(made.returncode == 0, f"a {dtype} model is made", made.stderr) else None


def some(table, more, first, step):
    """Every row, or a few that start somewhere else for each model."""
    return (table + more)[first % 3::3] if ALL else table[first::step]


with scratch() as folder:
    write_prompts(folder)
    for number, dtype in enumerate(("q8_0", "f32", "q4_k")):
        path = make(folder, SHAPE, dtype)
        if path:
            check(folder, path, dtype,
                  (TABLE + MORE if ALL else TABLE[::2]) if dtype == "q8_0" else some(TABLE, MORE, number, 6))
            if dtype == "q4_k":
                check(folder, path, "q4_k, q8_0 cache", some(TABLE, MORE, 0, 5), "model.kv_type=q8_0")
    check(folder, STORIES, "stories260K", some(TABLE, MORE, 4, 6))
    for number, dtype in enumerate(("q8_0", "f32", "q6_k")):
        path = make(folder, GRID_SHAPE, dtype)
        if path:
            check_grids(folder, path, f"grid {dtype}",
                        (GRIDS + MORE_GRIDS if ALL else GRIDS[::2]) if dtype == "q8_0"
                        else some(GRIDS, MORE_GRIDS, number, 5))
            if dtype != "f32":
                table = GRIDS + MORE_GRIDS if ALL else GRIDS[number + 1::4]
                check_grids(folder, path, f"grid {dtype}, likeliest tokens", table, job=GREEDY)
                check_grids(folder, path, f"grid {dtype}, scores", table, job=SCORE)
                check_grids(folder, path, f"grid {dtype}, drawn tokens", table, job=DRAWN)
    check_grids(folder, STORIES, "grid stories260K", some(GRIDS, MORE_GRIDS, 4, 7))
tap.exit()
