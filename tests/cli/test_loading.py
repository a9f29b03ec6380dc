"""Only rank 0 needs the model file. Ranks start in folders of their own, and the path is relative, so
that each has the file, has none, or has another one, as the test wants."""
import itertools
import os
import pty
import re
import subprocess
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
JOB = """job = "generate";
model: {{ path = "model.gguf"; }};
input: {{ prompts = "{folder}/prompts.txt"; }};
generate: {{ max_tokens = 6; logits = true; }};
layout: {{ threads = 1; }};
output: {{ file = "{folder}/out.h5"; }};
"""


def command(folders, *words):
    line = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    for i, place in enumerate(folders):
        line += ([":"] if i else []) + ["-np", "1", "-wdir", place, SAF, "run", "--fresh", *words]
    return line


def run(folders, *words, timeout=120):
    return subprocess.run(command(folders, *words), env=ENV, cwd=ROOT, text=True, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def results(folder):
    with h5py.File(os.path.join(folder, "out.h5")) as f:
        return ((f.attrs["tokens_sha256"], f.attrs["logits_sha256"], f.attrs["model_sha256"]),
                f["ranks"][...])


def make(path, *words):
    done = saf("model", "make", path, "--arch", "qwen3", *words)
    return tap.equal(done.returncode, 0, f"a model is made: {os.path.basename(path)}")


def check_bytes(label, has, table, without):
    """Without the file a rank receives its slice once, with it none of it: beyond what it receives in
    `without`, where all have the file."""
    for r, row in enumerate(table):
        slice_bytes = int(row["weight_bytes"])
        more = int(row["bytes_received"]) - int(without[r]["bytes_received"])
        expected = 0 if has[r] else slice_bytes
        tap.ok(abs(more - expected) < 0.01 * slice_bytes,
               f"{label}: rank {r} receives {'no weights' if has[r] else 'its slice'}",
               f"{more} bytes more than with a file, its slice has {slice_bytes}")
        giver = int(row["weights_from"])
        tap.ok(giver == r if has[r] else giver != r and has[giver],
               f"{label}: rank {r} has its weights from a rank with the file", giver)
        tap.ok(0 < row["load_s"] < 60, f"{label}: rank {r} says how long that took", row["load_s"])


with scratch() as folder:
    job = job_file(folder, JOB.format(folder=folder))
    with open(os.path.join(folder, "prompts.txt"), "w") as f:
        f.write("One morning\nThe ship\nA dog\n")
    full, empty, other = (os.path.join(folder, name) for name in ("full", "empty", "other"))
    for place in (full, empty, other):
        os.mkdir(place)
    model = os.path.join(full, "model.gguf")
    make(model, "--shape", "5:512:8:4:64:1536", "--type", "q8_0", "--vocab-size", "8192", "--tied",
         "--seed", "3")
    make(os.path.join(other, "model.gguf"), "--shape", "5:512:8:4:64:1536", "--type", "q8_0",
         "--vocab-size", "8191", "--tied", "--seed", "3")

    tap.equal(run([full], job, "--quiet").returncode, 0, "one rank")
    expected, _ = results(folder)
    for ranks in (2, 3, 4):
        for others in itertools.product((True, False), repeat=ranks - 1):
            if ranks == 4 and others.count(False) == 1:
                continue
            has = (True, *others)
            label = "files " + "".join("yn"[not h] for h in has)
            done = run([full if h else empty for h in has], job)
            if not tap.equal(done.returncode, 0, f"{label}: the job runs"):
                print("#", done.stderr)
                continue
            got, table = results(folder)
            tap.equal(got, expected, f"{label}: the same model, tokens and logits")
            if all(has):
                without = table
            check_bytes(label, has, table, without)
            tap.equal("ranks without model.gguf" in done.stderr, not all(has), f"{label}: said in the log")
    if tap.equal(run([full, empty], job, "--dry-run").returncode, 0, "--dry-run without the file"):
        tap.ok("rank" in run([full, empty], job, "--dry-run").stdout, "and it shows the plan")

    # What a rank with a file of its own finds there must be rank 0's.
    done = run([full, empty, other], job)
    tap.equal(done.returncode, 65, "another file on rank 2: exit 65")
    tap.ok(re.search(r"rank 2 \(?on? ?.*another file than rank 0's.*\b[0-9a-f]{64}\b.*\b[0-9a-f]{64}\b",
                     done.stderr), "the message names rank and both hashes", done.stderr)
    with open(model, "rb") as f, open(os.path.join(other, "model.gguf"), "wb") as g:
        g.write(f.read()[:-100])
    done = run([full, other], job)
    tap.equal(done.returncode, 65, "a truncated file on rank 1: exit 65")
    tap.ok("rank 1" in done.stderr and "past the end" in done.stderr, "the message names rank 1",
           done.stderr)
    done = run([other, empty], job)
    tap.equal(done.returncode, 65, "a truncated file on rank 0 alone: exit 65")
    done = run([empty, full], job)
    tap.equal(done.returncode, 66, "no file on rank 0: exit 66")
    tap.ok("model.gguf" in done.stderr, "the message names it", done.stderr)

    # A folder in place of the file counts as none.
    os.mkdir(os.path.join(empty, "model.gguf"))
    tap.equal(run([full, empty], job, "--quiet").returncode, 0, "a folder of that name on rank 1")
    tap.equal(results(folder)[0], expected, "the same results")

    # How far it is, on a terminal and nowhere else.
    done = run([full, empty], job)
    tap.ok("loading:" not in done.stderr, "no progress in a log", done.stderr)
    tap.equal(len(re.findall(r"loaded [0-9.]+ MB in", done.stderr)), 1, "one line at the end")
    ours, theirs = pty.openpty()
    line = command([full, empty, full], job)
    child = subprocess.Popen(line, env=ENV, cwd=ROOT, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the terminal's other end is closed
        pass
    tap.equal(child.wait(), 0, "a job at a terminal")
    os.close(ours)
    total = sum(int(row["weight_bytes"]) for row in results(folder)[1]) / 1e6
    end = re.search(r"loading: (\d+) of (\d+) MB, \d+ MB/s\r?\n", shown.decode(errors="replace"))
    tap.ok(end and end[1] == end[2] and abs(int(end[2]) - total) < 1,
           f"it shows that all {total:.0f} MB were loaded", shown)
tap.exit()
