"""Do two ranks add up? `make bench-ranks` (by CASES, TYPE, TOKENS, REPEATS)

Two one-thread ranks against one, measured in turn; divided by what two independent one-rank jobs reach
side by side against one alone, with nothing shared: the ceiling of any speed-up on this machine. Medians.
Before each turn, what others take of the two cores (gaps.c): ranks that meet pay for the gaps of both.

  decode-1   one sequence through a tensor split
  decode-8   eight sequences through a tensor split
  pipeline   16 sequences in micro-batches of 8 through two stages; one rank has 8 (the first 8 wait for the
             prompts of the others before their second token, which counts: the more tokens, the less)
  prefill    a prompt of 2,048 tokens in chunks through two stages
  prefill-t  the same through a tensor split
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
JOB = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ tokens = "{folder}/{prompts}.txt"; }};
generate: {{ max_tokens = {tokens}; temperature = 0.0; ignore_eos = true; }};
layout: {{ threads = 1; pipeline = {pipeline}; tensor = {tensor}; replicas = 1; }};
run: {{ sequences = {sequences}; micro_batch = {micro_batch}; }};
output: {{ file = "{folder}/{out}.h5"; }};
"""
# of one rank: sequences, prompt, tokens; of two: sequences, micro-batch, pipeline, tensor
CASES = {
    "decode-1": (1, 8, 48, 1, 1, 1, 2),
    "decode-8": (8, 8, 48, 8, 8, 1, 2),
    "pipeline": (8, 8, 192, 16, 8, 2, 1),
    "prefill": (1, 2048, 1, 1, 1, 2, 1),
    "prefill-t": (1, 2048, 1, 1, 1, 1, 2),
}


def command(model, folder, prompt, tokens, sequences, micro_batch, out, pipeline=1, tensor=1):
    """Of each rank of a run, its job file written."""
    prompts = f"prompts{sequences}x{prompt}"
    with open(os.path.join(folder, prompts + ".txt"), "w") as f:
        for i in range(sequences):
            f.write(" ".join(str((7919 * k + 31 * i) % 50000 + 256) for k in range(prompt)) + "\n")
    text = JOB.format(model=model, folder=folder, prompts=prompts, out=out, sequences=sequences,
                      tokens=tokens if tokens == 1 else os.environ.get("TOKENS", tokens),
                      micro_batch=micro_batch, pipeline=pipeline, tensor=tensor)
    return [SAF, "run", job_file(folder, text, out + ".cfg"), "--fresh", "--quiet"]


def start(cores, *what):
    if len(cores) > 1:
        line = ["mpirun", "-np", str(len(cores)), "--bind-to", "core"]
    else:
        line = ["taskset", "-c", str(cores[0])]
    return subprocess.Popen([*line, *command(*what)], cwd=ROOT, env=ENV)


def rate(folder, out, prompt):
    """Tokens a second: of the prompt, or of all sequences together while they decode."""
    with h5py.File(os.path.join(folder, out + ".h5")) as f:
        if prompt >= 512:
            return f.attrs["prompt_tokens"] / f.attrs["run_s"], list(f["ranks"]["busy"])
        return sum(1 / f["requests"]["seconds_per_token"]), list(f["ranks"]["busy"])


def lost():
    """Of each core, in percent, while both are busy."""
    gaps = [subprocess.Popen(["taskset", "-c", str(core), os.path.join(os.path.dirname(SAF), "bench-gaps")],
                             stdout=subprocess.PIPE, text=True) for core in (0, 1)]
    return [float(p.communicate()[0].split()[0]) for p in gaps]


def finish(*processes):
    for p in processes:
        if p.wait() != 0:
            sys.exit("a run failed")


def measure(case, model, folder):
    sequences, prompt, tokens, of_two, micro_batch, pipeline, tensor = CASES[case]
    speedups, ceilings, busiest, taken = [], [], [], []
    for repeat in range(REPEATS):
        taken.append(max(lost()))
        alone = (model, folder, prompt, tokens, sequences, sequences)
        finish(start([0], *alone, "one"))
        finish(start([0, 1], model, folder, prompt, tokens, of_two, micro_batch, "two", pipeline, tensor))
        finish(start([0], *alone, "left"), start([1], *alone, "right"))
        one, _ = rate(folder, "one", prompt)
        two, busy = rate(folder, "two", prompt)
        both = rate(folder, "left", prompt)[0] + rate(folder, "right", prompt)[0]
        print(f"{case} {repeat}: one rank {one:.1f} tokens/s, two ranks {two:.1f} ({two / one:.2f} x, busy "
              f"{' '.join(f'{b:.2f}' for b in busy)}), two independent {both:.1f} "
              f"({both / one:.2f} x)", flush=True)
        speedups.append(two / one)
        ceilings.append(both / one)
        busiest.append(min(busy))
    print(f"{case}: speed-up {statistics.median(speedups):.2f}, independent processes "
          f"{statistics.median(ceilings):.2f}, share reached "
          f"{statistics.median(s / c for s, c in zip(speedups, ceilings)):.2f}, least busy rank "
          f"{statistics.median(busiest):.2f}, others took {statistics.median(taken):.1f} % of a core "
          f"(medians of {REPEATS})", flush=True)


def cases():
    wanted = os.environ.get("CASES", " ".join(CASES)).split()
    unknown = [c for c in wanted if c not in CASES]
    if unknown:
        sys.exit(f"CASES: {' '.join(unknown)}; expected some of: {' '.join(CASES)}")
    return wanted


def main():
    model = bench_model(os.environ.get("TYPE", "q8_0"))
    with scratch() as folder:
        for case in cases():
            measure(case, model, folder)


if __name__ == "__main__":
    main()
