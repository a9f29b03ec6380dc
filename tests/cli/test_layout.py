"""What --dry-run says of the layout: the grid, what each rank would hold, what the cut gains; and what
is said when the numbers do not fit the ranks."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
COLUMNS = ["rank", "host", "replica", "stage", "part", "layers", "heads", "threads", "weights MiB",
           "replicated MiB", "cache MiB"]


def make_job(folder, model):
    return job_file(folder, f'job = "generate"; model: {{ path = "{model}"; }};\n'
                    'input: { prompts = "jobs/data/demo.txt"; };')


def plan(job, ranks, *words):
    """The lines above the table, and its rows as dicts."""
    p = saf("run", job, "--dry-run", "--quiet", *words, ranks=ranks)
    lines = p.stdout.splitlines()
    heads = [i for i, line in enumerate(lines) if re.match(r" *rank +host", line)]
    if not tap.ok(p.returncode == 0 and len(heads) == 1, f"{ranks} ranks {' '.join(words)}",
                  p.stdout + p.stderr):
        return [""], []
    tap.equal(lines[heads[0]].split(), " ".join(COLUMNS).split(), "columns")
    return lines[:heads[0]], [dict(zip(COLUMNS, line.split())) for line in lines[heads[0] + 1:]]


def refused(job, ranks, words, *said):
    p = saf("run", job, "--quiet", *words, ranks=ranks)
    errors = [line for line in p.stderr.splitlines() if "error: " in line]
    tap.ok(p.returncode == 2 and len(errors) == 1 and all(s in errors[0] for s in said),
           f"{ranks} ranks {' '.join(words)} are refused: {said[-1]}", f"{p.returncode}: {p.stderr}")


def a_large_vocabulary(folder):
    """The proportions of a model of 1.7 billion parameters: the head weighs as much as six layers."""
    model = os.path.join(folder, "large.gguf")
    saf("model", "make", model, "--arch", "qwen3", "--shape", "28:64:4:2:16:192", "--type", "q8_0",
        "--vocab-size", "4746", "--tied", "--context", "512")
    job = make_job(folder, model)
    head, rows = plan(job, 3)
    tap.equal(head[0], "pipeline 3: layers 0-10 | 11-21 | 22-27 + head", "the head counts in the cut")
    tap.ok(re.match(r"cut by cost: the largest stage costs \d+\.\d MiB a micro-batch, with 10-9-9 layers \d+\.\d "
                    r"\(19 % slower\)$", head[1]), "what it gains over equal numbers", head[1])
    tap.equal([r["layers"] for r in rows], ["0-10", "11-21", "22-27"], "layers of the ranks")
    tap.ok(float(rows[2]["replicated MiB"]) > 0.2 and float(rows[0]["replicated MiB"]) == 0,
           "the tied embedding is replicated", rows)
    head, _ = plan(job, 3, "layout.stages=[10,9,9]")
    tap.ok(re.match(r"cut by hand: the largest stage .* \(19 % slower\)$", head[1]), "a worse cut", head[1])
    head, _ = plan(job, 3, "layout.stages=[11,11,6]")
    tap.ok(re.match(r"cut by hand: the largest stage costs [0-9.]+ MiB a micro-batch$", head[1]), "as good a cut", head[1])
    head, _ = plan(job, 3, "layout.share=[1.0,2.0,1.0]")
    first, second, third = map(int, re.findall(r"(?:-| )(\d+)(?= \||\s\+)", head[0]))
    tap.ok(second - first > 1.7 * (first + 1) > 1.7 * (third - second),
           "a rank of twice the share has twice the layers", head[0])
    refused(job, 29, (), "29 ranks", "28 layers", "start 28 or 30 ranks")


def grids(folder):
    job = make_job(folder, STORIES)
    weights = 0
    for ranks, words, grid in (
            (1, [], (1, 1, 1)),
            (4, ["layout.tensor=4"], (1, 1, 4)),
            (6, ["layout.tensor=3"], (1, 2, 3)),
            (6, ["layout.tensor=2", "layout.replicas=3"], (3, 1, 2)),
            (8, ["layout.tensor=2", "layout.replicas=2", "layout.share=[1,2,3,4,5,6,7,8]"], (2, 2, 2)),
            (7, ["layout.tensor=7"], (1, 1, 7))):
        head, rows = plan(job, ranks, *words)
        places = [(int(r["replica"]), int(r["stage"]), int(r["part"])) for r in rows]
        tap.equal(places, [(r, s, t) for r in range(grid[0]) for s in range(grid[1])
                           for t in range(grid[2])], "neighbours are parts of a stage")
        name = "pipeline 1" if ranks == 1 else f"replicas {grid[0]} x pipeline {grid[1]} x tensor {grid[2]}"
        tap.ok(head[0].startswith(name + ": layers 0") and head[0].endswith(" + head"), name, head[0])
        once = sum(float(r["weights MiB"]) - float(r["replicated MiB"]) for r in rows) / grid[0]
        weights = weights or once
        tap.ok(abs(once - weights) < 0.06 * ranks, f"replicas hold the model once: {once:.1f} MiB", rows)
        for stage in {p[:2] for p in places}:
            heads = [r["heads"] for r, p in zip(rows, places) if p[:2] == stage]
            runs = [(int(h.split("-")[0]), int(h.split("-")[-1])) for h in heads if h != "none"]
            tap.equal([h for a, b in runs for h in range(a, b + 1)], list(range(8)),
                      f"each head once: {' '.join(heads)}")


def errors(folder):
    job = make_job(folder, STORIES)
    refused(job, 3, ["layout.pipeline=2"], "layout.pipeline 2, but there are 3 ranks", "start 2 or 4 ranks")
    refused(job, 3, ["layout.tensor=2"], "layout.tensor 2, but there are 3 ranks", "start 2 or 4 ranks")
    refused(job, 2, ["layout.replicas=2", "layout.pipeline=2"],
            "layout.replicas 2 x layout.pipeline 2, but there are 2 ranks", "start 4 ranks")
    refused(job, 2, ["layout.pipeline=6", "--dry-run"], "layout.pipeline 6", "5 layers")
    refused(job, 2, ["layout.stages=[5,1]"], "layout.stages", "the model has 5")
    refused(job, 3, ["layout.share=[1.0,2.0]"], "layout.share has 2 entries", "3, one for each rank")
    refused(job, 1, ["layout.share=[0.0]"], "layout.share", "got 0")


def idle(folder):
    """Ranks that are left without heads or rows are said in one line, by the plan and by the run."""
    job = make_job(folder, STORIES)
    for words in ["--dry-run"], ["generate.max_tokens=1", f"output.file={folder}/out.h5"]:
        for ranks, text in (3, "of 3 ranks 1 have no attention heads and 1 no rows of some matrix"), (2, ""):
            p = saf("run", job, "--quiet", f"layout.tensor={ranks}", *words, ranks=ranks)
            tap.ok(p.returncode == 0 and text in p.stderr and p.stderr.count("warning: ") == bool(text),
                   f"{ranks} ranks, {words[0]}", p.stderr)


for part in (a_large_vocabulary, grids, errors, idle):
    with scratch() as scratch_folder:
        part(scratch_folder)
tap.exit()
