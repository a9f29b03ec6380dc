"""Tokens a second of one rank: prefill of 512 tokens and decode after it, by type and threads.
`make bench-rank`; medians. TYPES, THREADS and REPEATS are environment variables."""
import os
import statistics
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ROOT, job_file, saf, scratch  # noqa: E402

REPEATS = int(os.environ.get("REPEATS", "5"))
TYPES = os.environ.get("TYPES", "q8_0 q4_0 q4_k q6_k").split()
THREADS = [int(t) for t in os.environ.get("THREADS", "1 2").split()]
SHAPE = os.environ.get("SHAPE", "28:1024:16:8:128:3072")
FOLDER = os.path.join(ROOT, os.environ.get("BUILD", "build"), "bench")

JOB = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ tokens = "{folder}/ids.txt"; }};
generate: {{ max_tokens = 33; temperature = 0.0; ignore_eos = true; }};
layout: {{ threads = {threads}; }};
run: {{ chunk = 512; }};
output: {{ file = "{folder}/out.h5"; }};
"""


def bench_model(dtype):
    """Path of the 0.6-billion-parameter model of this type, made on first use."""
    path = os.path.join(FOLDER, f"qwen3-0.6b-{dtype}.gguf")
    os.makedirs(FOLDER, exist_ok=True)
    if not os.path.exists(path):
        made = saf("model", "make", path, "--arch", "qwen3", "--shape", SHAPE, "--type", dtype,
                   "--seed", 1, "--vocab-size", 151936, timeout=600)
        if made.returncode != 0:
            sys.exit(made.stderr)
    return path


def main():
    print("type   threads  prefill tokens/s  decode tokens/s  load s   (medians of", REPEATS, ")")
    with scratch() as folder:
        with open(os.path.join(folder, "ids.txt"), "w") as f:
            f.write(" ".join(str(1 + i * 7 % 250) for i in range(512)) + "\n")
        for dtype in TYPES:
            path = bench_model(dtype)
            for threads in THREADS:
                job = job_file(folder, JOB.format(model=path, folder=folder, threads=threads))
                prefill, decode, load = [], [], []
                for _ in range(REPEATS):
                    run = saf("run", job, "--quiet")
                    if run.returncode != 0:
                        sys.exit(run.stderr)
                    with h5py.File(os.path.join(folder, "out.h5")) as f:
                        row = f["requests"][0]
                        prefill.append(512 / row["time_to_first_token_s"])
                        decode.append(1 / row["seconds_per_token"])
                        load.append(f.attrs["load_s"])
                print(f"{dtype:6} {threads:7} {statistics.median(prefill):17.0f} "
                      f"{statistics.median(decode):16.1f} {statistics.median(load):7.2f}", flush=True)


if __name__ == "__main__":
    main()
