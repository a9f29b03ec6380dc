"""run.trace: what the ranks did when, against what the results say otherwise, on one clock."""
import os
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
JOB = """job = "{kind}";
model: {{ path = "{model}"; }};
input: {{ {input} = "jobs/data/demo.txt"; }};
run: {{ trace = true; sequences = 6; chunk = 16; }};
output: {{ file = "{folder}/out.h5"; }};
"""
CLOCKS_S = 5e-3  # how well the clocks of two ranks may be told on a machine that is busy


def read(folder):
    with h5py.File(os.path.join(folder, "out.h5")) as f:
        return dict(f.attrs), f["ranks"][:], f["timeline"][:] if "timeline" in f else None


def of(rows, *kinds):
    return rows[np.isin(rows["kind"], [k.encode() for k in kinds])]


def seconds(rows):
    return float((rows["end_s"] - rows["start_s"]).sum())


def fit_together(rows):
    """Whether entries follow each other or lie inside of one that ended later."""
    waiting = []
    for row in rows:
        while waiting and waiting[-1]["start_s"] >= row["start_s"]:
            waiting.pop()
        if waiting and waiting[-1]["end_s"] > row["start_s"] + 1e-9:
            return False
        waiting.append(row)
    return True


def check_rank(rows, row, attrs, name):
    run_s = float(attrs["run_s"])
    tap.ok(fit_together(rows), f"{name}: entries follow or contain each other")
    work = of(rows, "compute", "sample")
    tap.ok((rows["start_s"] >= 0).all() and work["end_s"].max() <= run_s + CLOCKS_S,
           f"{name}: they lie in the run", (work["end_s"].max(), run_s))
    tap.ok((rows["start_s"] <= run_s + 0.1).all(), f"{name}: at most words are said after it", run_s)
    inside = of(rows, "exchange")
    inside = sum(seconds(inside[(inside["start_s"] >= w["start_s"]) & (inside["end_s"] <= w["end_s"])])
                 for w in work)
    tap.ok(abs(seconds(work) - inside - row["compute_s"]) < 20e-6 + 1e-3 * row["compute_s"],
           f"{name}: the time computing is that of /ranks", (seconds(work), inside, row["compute_s"]))


def check_flights(rows, stages, name):
    """Every flight is computed by one stage after the other, and its results are received. `stages`: of each rank."""
    first = of(rows[rows["rank"] == 0], "compute")
    tap.equal(list(first["flight"]), list(range(len(first))), f"{name}: flights are counted from 0")
    of_stage = {0: first}  # of its first rank, which talks to the other stages
    for rank, stage in list(enumerate(stages))[1:]:
        now = of(rows[rows["rank"] == rank], "compute")
        tap.ok(list(now["flight"]) == list(first["flight"]) and
               list(now["tokens"]) == list(first["tokens"]), f"{name}: rank {rank} computes the same")
        of_stage.setdefault(stage, now)
        if stage > 0:
            gap = now["start_s"] - of_stage[stage - 1]["end_s"]
            tap.ok((gap >= -CLOCKS_S).all(), f"{name}: rank {rank} computes a flight after the stage before",
                   gap.min())
        others = sum(stages == stage) > 1
        tap.ok((len(of(rows[rows["rank"] == rank], "exchange")) > 0) == others,
               f"{name}: rank {rank} exchanges only with ranks of its stage")
    sampled = of(rows[rows["rank"] == list(stages).index(max(stages))], "sample")
    tap.equal(list(sampled["flight"]), list(first["flight"]), f"{name}: the last stage samples each")
    home = of(rows[rows["rank"] == 0], "receive")
    last = {int(r["flight"]): r["end_s"] for r in home}
    tap.ok(all(last[int(s["flight"])] >= s["end_s"] - CLOCKS_S for s in sampled),
           f"{name}: rank 0 receives a flight's results after they were sampled")
    return int(first["tokens"].sum())


def check(folder, kind, ranks, run, name):
    if not tap.equal(run.returncode, 0, f"{name}: the job runs"):
        print("#", run.stderr)
        return None
    attrs, table, rows = read(folder)
    for rank in range(ranks):
        check_rank(rows[rows["rank"] == rank], table[rank], attrs, f"{name}, rank {rank}")
    tokens = check_flights(rows, table["stage"], name)
    fed = int(attrs["prompt_tokens"])
    if kind == "generate":  # the last token of each request is not fed
        fed += int(attrs["completion_tokens"]) - 8
    tap.equal(tokens, fed, f"{name}: the flights hold every token that was fed")
    return attrs["tokens_sha256"]


def other_clocks():
    """Words that start a process whose clock shows 5000 s more; None where that cannot be had."""
    words = ["unshare", "--time", "--monotonic", "5000", "--fork"]
    try:
        ok = subprocess.run([*words, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        ok = False
    return words if ok else None


with scratch() as folder:
    for kind, word in ("generate", "prompts"), ("score", "texts"):
        job = job_file(folder, JOB.format(kind=kind, model=STORIES, input=word, folder=folder))
        words = [job] + ["generate.max_tokens=24"] * (kind == "generate")
        hashes = set()
        for ranks, tensor in (1, 1), (2, 1), (2, 2), (4, 1), (4, 2):
            run = saf("run", *words, f"layout.tensor={tensor}", ranks=ranks)
            hashes.add(check(folder, kind, ranks, run, f"{kind} on {ranks}, tensor {tensor}"))
            tap.ok("exchange %" in run.stdout, "the report has the shares", run.stdout)
        run = saf("run", *words, "run.trace=false", ranks=2)
        attrs, _, rows = read(folder)
        tap.ok(rows is None and "exchange %" not in run.stdout, "there is no timeline unless asked for")
        tap.equal(hashes, {attrs["tokens_sha256"]}, f"{kind}: the answers are the same without")

    clocks = other_clocks()
    if clocks:
        words = ["run", job_file(folder, JOB.format(kind="generate", model=STORIES, input="prompts",
                                                    folder=folder)), "generate.max_tokens=24", "--fresh"]
        run = subprocess.run(["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "1", SAF, *words, ":",
                              "-np", "1", *clocks, SAF, *words], cwd=ROOT, env=ENV, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False)
        check(folder, "generate", 2, run, "with clocks 5000 s apart")
    else:
        tap.skip("ranks with clocks of their own", "no time namespaces here")
tap.exit()
