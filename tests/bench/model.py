"""One rank against what its threads could do at best: jobs/bench-model.cfg by type and threads.
`make bench-model`; medians of REPEATS. TYPES, THREADS, REPEATS, SHAPE and CONTEXT are environment
variables. The results stay in build/bench for `saf report`, which says where the time goes and how
far the repetitions were apart.

  prefill  512 tokens in one piece: tokens a second; % of the time that its operations take at
           their peaks, and at that of the tile units (AMX) in place of vector instructions'; for float types % of the rate of OpenBLAS's sgemm
  decode   tokens a second; % of the read bandwidth, weights and (with CONTEXT tokens before) keys
           and values; of 16 sequences, and how many times as many tokens that is
  load     seconds, and how many times as long as a plain copy from the page cache
"""
import os
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ROOT, saf  # noqa: E402

REPEATS = int(os.environ.get("REPEATS", "9"))
TYPES = os.environ.get("TYPES", "q8_0 q4_0 q4_k q6_k").split()
THREADS = [int(t) for t in os.environ.get("THREADS", "1 2").split()]
SHAPE = os.environ.get("SHAPE", "28:1024:16:8:128:3072")
CONTEXT = int(os.environ.get("CONTEXT", "4096"))
FOLDER = os.path.join(ROOT, os.environ.get("BUILD", "build"), "bench")
HEAD = ("type", "threads", "read GB/s", "int8 Gop/s", "f32 Gop/s", "prefill", "% peak", "% tiles", "% sgemm",
        "decode", "% read", f"at {CONTEXT}", "% read", "16 at once", "times", "load s", "copies")


def bench_model(dtype):
    """Path of a model of this shape and type, made on first use."""
    path = os.path.join(FOLDER, f"qwen3-{SHAPE.replace(':', '-')}-{dtype}.gguf")
    os.makedirs(FOLDER, exist_ok=True)
    if not os.path.exists(path):
        made = saf("model", "make", path, "--arch", "qwen3", "--shape", SHAPE, "--type", dtype,
                   "--seed", 1, "--vocab-size", 151936, "--context", 32768, timeout=600)
        if made.returncode != 0:
            sys.exit(made.stderr)
    return path


def cells(dtype, threads):
    out = os.path.join(FOLDER, f"{dtype}-{threads}.h5")
    run = saf("run", "jobs/bench-model.cfg", "--quiet", f"model.path={bench_model(dtype)}",
              f"layout.threads={threads}", f"bench.context={CONTEXT}", f"bench.repeats={REPEATS}",
              f"output.file={out}", timeout=3600)
    if run.returncode != 0:
        sys.exit(run.stderr)
    with h5py.File(out) as f:
        rows = {r["phase"].decode(): r for r in f["bench/phases"][:]}
    prefill, decode, many, load = (rows[p] for p in ("prefill", "decode", "decode, batched", "load"))
    far = rows.get("decode, long context")
    yield from (dtype, threads, f"{decode['read_bytes_per_s'] / 1e9:.1f}")
    yield from (f"{prefill[p + '_ops_per_s'] / 1e9:.0f}" for p in ("int8", "f32"))
    yield from (f"{prefill['tokens_per_s']:.0f}", f"{100 * prefill['of_peak']:.0f}")
    for share in (prefill["of_tiles"], prefill["of_sgemm"]):
        yield "-" if share != share else f"{100 * share:.0f}"
    for row in (decode, far):
        yield "-" if row is None else f"{row['tokens_per_s']:.1f}"
        yield "-" if row is None else f"{100 * row['of_read']:.0f}"
    yield from (f"{many['tokens_per_s']:.0f}", f"{many['tokens_per_s'] / decode['tokens_per_s']:.1f}")
    yield from (f"{load['seconds']:.2f}", f"{load['copies']:.2f}")


def main():
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for dtype in TYPES:
        for threads in THREADS:
            print("| " + " | ".join(map(str, cells(dtype, threads))) + " |", flush=True)


if __name__ == "__main__":
    main()
