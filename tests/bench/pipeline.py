"""Do two ranks add up? `make bench-pipeline`

A pipeline of 2 one-thread ranks with 16 sequences in micro-batches of 8, against one one-thread rank
with 8 sequences, measured in turn; divided by what two independent one-rank jobs reach side by side
against one alone, with nothing shared (the ceiling of any speed-up on this machine). Medians.
"""
import os
import statistics
import subprocess
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, job_file, scratch  # noqa: E402
from model import bench_model  # noqa: E402

REPEATS = int(os.environ.get("REPEATS", "5"))
TOKENS = int(os.environ.get("TOKENS", "48"))
JOB = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ prompts = "{folder}/prompts{n}.txt"; }};
generate: {{ max_tokens = {tokens}; temperature = 0.0; ignore_eos = true; }};
layout: {{ threads = 1; }};
run: {{ sequences = {n}; micro_batch = 8; }};
output: {{ file = "{folder}/{out}.h5"; }};
"""


def start(model, folder, n, out, cores):
    job = job_file(folder, JOB.format(model=model, folder=folder, n=n, tokens=TOKENS, out=out),
                   out + ".cfg")
    command = [SAF, "run", job, "--quiet"]
    if len(cores) > 1:
        command = ["mpirun", "-np", str(len(cores)), "--bind-to", "core", *command]
    else:
        command = ["taskset", "-c", str(cores[0]), *command]
    return subprocess.Popen(command, cwd=ROOT, env=ENV)


def rate(folder, out):
    """Completion tokens a second, and how busy each rank was."""
    with h5py.File(os.path.join(folder, out + ".h5")) as f:
        return f.attrs["completion_tokens"] / f.attrs["run_s"], list(f["ranks"]["busy"])


def finish(*processes):
    for p in processes:
        if p.wait() != 0:
            sys.exit("a run failed")


def main():
    model = bench_model("q8_0")
    speedups, ceilings, busiest = [], [], []
    with scratch() as folder:
        for n in (8, 16):
            with open(os.path.join(folder, f"prompts{n}.txt"), "w") as f:
                for i in range(n):
                    f.write(f"Story number {i}: the\n")
        for repeat in range(REPEATS):
            finish(start(model, folder, 8, "one", [0]))
            finish(start(model, folder, 16, "two", [0, 1]))
            finish(start(model, folder, 8, "left", [0]), start(model, folder, 8, "right", [1]))
            one, _ = rate(folder, "one")
            two, busy = rate(folder, "two")
            both = rate(folder, "left")[0] + rate(folder, "right")[0]
            print(f"{repeat}: one rank {one:.1f} tokens/s, two ranks {two:.1f} ({two / one:.2f} x, busy "
                  f"{' '.join(f'{b:.2f}' for b in busy)}), two independent {both:.1f} "
                  f"({both / one:.2f} x)", flush=True)
            speedups.append(two / one)
            ceilings.append(both / one)
            busiest.append(min(busy))
    print(f"speed-up {statistics.median(speedups):.2f}, independent processes "
          f"{statistics.median(ceilings):.2f}, share reached "
          f"{statistics.median(s / c for s, c in zip(speedups, ceilings)):.2f}, least busy rank "
          f"{statistics.median(busiest):.2f} (medians of {REPEATS})")


if __name__ == "__main__":
    main()
