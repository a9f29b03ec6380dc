"""How right are plans? `make bench-plan` (by SHAPES, TYPES, LAYOUTS, JOBS, REPEATS; KEEP=FILE.json goes on)

A job by each layout on this host's two cores, in turn; before and after every repetition the yardsticks, and a plan
made from their mean. A case is right where the median of (planned / measured - 1) is within 15 %, or within what the
measured times themselves spread from their 10th to their 90th percentile; a choice is right where the layout that
the plan has for the fastest takes at most a tenth longer than any other (the median of the ratios of each turn).

  job one    a prompt of 512 tokens (prefill: time to the first token), then 24 tokens (decode: time of a token)
  job eight  eight prompts of 16, then 24 tokens each (time of a token)
"""
import json
import os
import statistics
import subprocess
import sys
import time

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, job_file, scratch  # noqa: E402

REPEATS = int(os.environ.get("REPEATS", "9"))
SHAPES = {"0.6B": "28:1024:16:8:128:3072", "1.7B": "28:2048:16:8:128:6144"}
LAYOUTS = {"one rank": (1, 1, 1), "pipeline": (2, 2, 1), "tensor": (2, 1, 2)}  # ranks, stages, parts
JOBS = {"one": (1, 512, 24), "eight": (8, 16, 24)}  # requests, prompt, tokens
MEASURES = {"one": ("prefill 512", "decode 1"), "eight": ("decode 8",)}


def chosen(name, known):
    words = os.environ.get(name)
    return [k for k in known if not words or k in words.split(",")]


class Yard:
    def __init__(self):
        self.process = subprocess.Popen([os.path.join(os.path.dirname(SAF), "bench-yard")], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def sample(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [float(word) for word in self.process.stdout.readline().split()]


def make_model(folder, shape, dtype):
    path = os.path.join(folder, f"{shape}-{dtype}.gguf")
    if not os.path.exists(path):
        subprocess.run([SAF, "model", "make", path, "--arch", "qwen3", "--shape", SHAPES[shape], "--type", dtype, "--vocab-size",
                        "151936", "--tied"], check=True, stdout=subprocess.DEVNULL)
    return path


def write_job(folder, model, job, layout):
    requests, prompt, tokens = JOBS[job]
    with open(os.path.join(folder, f"{job}.txt"), "w") as f:
        for i in range(requests):
            f.write(" ".join(str((7919 * k + 31 * i) % 50000 + 256) for k in range(prompt)) + "\n")
    ranks, stages, parts = LAYOUTS[layout]
    return job_file(folder, f"""job = "generate";
model: {{ path = "{model}"; }};
input: {{ tokens = "{folder}/{job}.txt"; }};
generate: {{ max_tokens = {tokens}; ignore_eos = true; }};
layout: {{ threads = {2 // ranks}; pipeline = {stages}; tensor = {parts}; replicas = 1; }};
run: {{ profile = "none"; }};
output: {{ file = "{folder}/out.h5"; }};
""", "job.cfg")


def measure(folder, path, ranks):
    line = ["mpirun", "-np", str(ranks), "--bind-to", "core"] if ranks > 1 else []
    subprocess.run([*line, SAF, "run", path, "--fresh", "--quiet"], cwd=ROOT, env=ENV, check=True)
    with h5py.File(os.path.join(folder, "out.h5")) as f:
        r = f["requests"][:]
    return min(r["time_to_first_token_s"]), statistics.mean(r["seconds_per_token"])


def plan(folder, path, ranks, rates):
    read, core, int8, f32, products, hidden, tiles = rates
    cluster = job_file(folder, f"hosts = ( {{ memory_gb = 64.0; cores = 2; ranks = {ranks}; bandwidth_gbs = {read * 1e-9}; core_bandwidth_gbs = {core * 1e-9}; "
                       f"int8_gops = {int8 * 1e-9}; gflops = {f32 * 1e-9}; product_share = {products}; hidden_share = {hidden}; tiles = {'true' if tiles else 'false'}; }} );",
                       "cluster.cfg")
    p = subprocess.run([SAF, "plan", path, "--cluster", cluster, "--json"], cwd=ROOT, env=ENV, check=True, stdout=subprocess.PIPE)
    best = next(x for x in json.loads(p.stdout)["layouts"] if x["ranks"] == ranks)
    return best["first_token_s"], best["token_s"]


def measure_cases(folder, yard, shape, dtype, job, kept):
    """Layouts in turn, a repetition each."""
    model, wanted = make_model(folder, shape, dtype), chosen("LAYOUTS", LAYOUTS)
    for repeat in range(REPEATS):
        for layout in wanted:
            rows = kept.setdefault(f"{shape}|{dtype}|{job}|{layout}", [])
            if len(rows) > repeat:
                continue
            path = write_job(folder, model, job, layout)
            before = yard.sample()
            got = measure(folder, path, LAYOUTS[layout][0])
            after = yard.sample()
            planned = plan(folder, path, LAYOUTS[layout][0], [(a + b) / 2 for a, b in zip(before[:-1], after[:-1])] + after[-1:])
            rows.append({"got": got, "planned": planned, "before": before, "after": after})
            if os.environ.get("KEEP"):
                with open(os.environ["KEEP"], "w") as f:
                    json.dump(kept, f)
            if time.monotonic() > END:
                return


def spread(values):
    """How far the 10th and the 90th percentile are from the median."""
    values = sorted(values)
    at = [values[min(len(values) - 1, round(p * (len(values) - 1)))] for p in (0.1, 0.5, 0.9)]
    return max(at[2] / at[1] - 1, 1 - at[0] / at[1])


def report(kept):
    good = all_of = 0
    print("| shape, type | what | layout | measured ms | plan ms | off by | spread | repeats |\n|---|---|---|---|---|---|---|---|")
    times = {}
    for key, rows in kept.items():
        shape, dtype, job, layout = key.split("|")
        for i, what in enumerate(MEASURES[job]):
            which = i if job == "one" else 1
            got, planned = [r["got"][which] for r in rows], [r["planned"][which] for r in rows]
            off, wide = statistics.median(p / g - 1 for p, g in zip(planned, got)), spread(got)
            times.setdefault((shape, dtype, what), {})[layout] = (got, statistics.median(planned))
            good += abs(off) <= max(0.15, wide)
            all_of += 1
            print(f"| {shape} {dtype} | {what} | {layout} | {1e3 * statistics.median(got):.1f} | {1e3 * statistics.median(planned):.1f} | "
                  f"{100 * off:+.0f} % | {100 * wide:.0f} % | {len(rows)} |")
    print(f"\n{good} of {all_of} cases are right.")
    for case, layouts in times.items():
        named = min(layouts, key=lambda x: layouts[x][1])
        # by turns: the machine may be another one in the next
        worse = max(statistics.median(a / b for a, b in zip(layouts[named][0], got)) for got, _ in layouts.values()) - 1
        print(f"{' '.join(case)}: the plan's best, {named}, is {100 * worse:.0f} % from the best measured"
              f"{'' if worse <= 0.1 else ', too far'}")


def main():
    kept = {}
    if os.environ.get("KEEP") and os.path.exists(os.environ["KEEP"]):
        with open(os.environ["KEEP"]) as f:
            kept = json.load(f)
    yard = Yard()
    with scratch() as own:
        folder = os.environ.get("MODELS", own) if os.path.isdir(os.environ.get("MODELS", own)) else own
        for shape in chosen("SHAPES", SHAPES):
            for dtype in chosen("TYPES", ("q8_0", "q4_k")):
                for job in chosen("JOBS", JOBS):
                    if time.monotonic() < END:
                        measure_cases(folder, yard, shape, dtype, job, kept)
    report(kept)


END = time.monotonic() + float(os.environ.get("SECONDS", "1e9"))
if __name__ == "__main__":
    main()
