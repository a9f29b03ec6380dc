"""saf run with no room for its results: exit code 74, a message with the path and the bytes, an
older file untouched, nothing half-written left."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, NO_COUNTERS, ROOT, SAF, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
JOB = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ prompt = "One morning"; }};
generate: {{ max_tokens = {tokens}; ignore_eos = true; logits = true; }};
output: {{ file = "{out}"; }};
"""


def run_limited(job, kib, *words):
    """bash counts the limit in KiB."""
    return subprocess.run(["bash", "-c", f"{NO_COUNTERS}ulimit -f {kib}; exec \"$0\" \"$@\"", SAF, "run", "--fresh", job,
                           *words], cwd=ROOT, env=ENV, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120, check=False)


with scratch() as folder:
    model, out = os.path.join(folder, "m.gguf"), os.path.join(folder, "out.h5")
    made = saf("model", "make", model, "--arch", "llama", "--shape", "2:64:4:2:16:96", "--type",
               "q8_0", "--vocab-size", 4096)
    if not tap.ok(made.returncode == 0, "a model is made", made.stderr):
        tap.exit()
    first = saf("run", job_file(folder, JOB.format(model=model, out=out, tokens=3)), "--quiet")
    if not tap.ok(first.returncode == 0, "a first run", first.stderr):
        tap.exit()
    with open(out, "rb") as f:
        older = f.read()
    job = job_file(folder, JOB.format(model=model, out=out, tokens=200))  # 3.3 MB of logits
    for kib in (0, 1, 20, 500, 1500, 3000):
        run = run_limited(job, kib, "--quiet")
        tap.equal(run.returncode, 74, f"{kib} KiB: exit code")
        tap.ok(out in run.stderr and "bytes" in run.stderr, f"{kib} KiB: message", run.stderr)
        with open(out, "rb") as f:
            tap.ok(f.read() == older, f"{kib} KiB: the older file is as it was")
        tap.equal(sorted(os.listdir(folder)), ["job.cfg", "m.gguf", "out.h5"],
                  f"{kib} KiB: nothing else is left")
    run = run_limited(job, 8000, "--quiet")
    tap.equal(run.returncode, 0, "with enough room it runs")
    nowhere = os.path.join(folder, "none", "out.h5")
    run = saf("run", job, f"output.file={nowhere}", "--quiet")
    tap.ok(run.returncode == 73 and nowhere in run.stderr, "a missing folder", run.stderr)
tap.exit()
