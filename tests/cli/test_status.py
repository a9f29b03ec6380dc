"""saf status: what the files of a job say of it, for people and programs, with the exit code of each state."""
import fcntl
import json
import os
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from results_maker import MAKER, library_file  # noqa: E402
from saftest import ROOT, STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
F_OFD_SETLK = 37


def checkpoint(path, number):
    subprocess.run([MAKER, path, "checkpoint", str(number), "20"], cwd=ROOT, check=True)


def status(path, code, name, says=()):
    """Both forms; returns the JSON."""
    run = saf("status", path)
    good = run.returncode == code and all(s in run.stdout for s in (str(path), *says))
    tap.ok(good, f"{name}: exit {code}, text", f"{run.returncode}\n{run.stdout}{run.stderr}")
    run = saf("status", path, "--json")
    if not tap.ok(run.returncode == code, f"{name}: exit {code}, JSON", f"{run.returncode} {run.stderr}"):
        return {}
    return json.loads(run.stdout)


def pick(got, *names):
    return [got.get(n) for n in names]


def lock(path):
    """As a process that writes it does."""
    f = open(path, "w", encoding="utf-8")
    fcntl.fcntl(f, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return f


with scratch() as folder:
    path = os.path.join(folder, "g.h5")

    got = status(path, 66, "nothing", ["no results and no checkpoints"])
    tap.equal(pick(got, "state", "running", "why"), ["nothing", False, None], "nothing: JSON")
    got = status(os.path.join(folder, "no", "where.h5"), 66, "no folder")
    held = lock(path + ".part")
    got = status(path, 66, "just started", ["running, no checkpoint yet"])
    tap.equal(pick(got, "state", "running"), ["nothing", True], "just started: JSON")
    held.close()
    got = status(path, 66, "left by a dead process", ["no results and no checkpoints"])
    tap.equal(pick(got, "running"), [False], "left by a dead process: JSON")
    os.remove(path + ".part")

    for number in (3, 7):
        checkpoint(path, number)
    wanted = ["stopped early, can go on", "generate job, 7 of 107 requests done, 119 tokens",
              "0.9 s of work; went on from a checkpoint 2 times", "model: tiny", "2026-01-31T12:34:56Z",
              path + ".ckpt-2", "the same `saf run` goes on"]
    got = status(path, 75, "resumable", wanted)
    size = os.path.getsize(path + ".ckpt-2")
    tap.equal(pick(got, "state", "running", "job_kind", "model_name", "done", "total", "tokens", "seconds", "resumes",
                   "start_time", "written", "checkpoint", "checkpoint_bytes", "why"),
              ["resumable", False, "generate", "tiny", 7, 107, 119, 0.875, 2, "2026-01-31T12:00:00Z",
               "2026-01-31T12:34:56Z", path + ".ckpt-2", size, None], "resumable: JSON")
    tap.equal(got["identity"], {"model": "Grüße", "generate.max_tokens": "12", "input.prompts": "", "number": "7"},
              "resumable: identity")
    got = status(path + ".ckpt-1", 75, "a checkpoint by itself", ["3 of 103 requests", path + ".ckpt-1, "])
    tap.equal(pick(got, "state", "done"), ["resumable", 3], "a checkpoint by itself: JSON")
    with lock(path + ".ckpt-3.part"):
        got = status(path, 75, "running", [": running\n"])
        tap.equal(pick(got, "state", "running"), ["resumable", True], "running: JSON")
    os.remove(path + ".ckpt-3.part")

    # the newest is damaged: from the one before; then none is good
    with open(path + ".ckpt-2", "r+b") as f:
        f.seek(2000)
        f.write(b"damage")
    got = status(path, 75, "the newest is damaged", ["3 of 103 requests", path + ".ckpt-1"])
    tap.ok(path + ".ckpt-2" in saf("status", path).stderr, "the newest is damaged: it is named")
    got = status(path + ".ckpt-2", 65, "a damaged one by itself", ["damaged", "checksum"])
    tap.equal(pick(got, "state"), ["damaged"], "a damaged one by itself: JSON")
    os.truncate(path + ".ckpt-1", 700)
    got = status(path, 65, "none is good", ["damaged", "none of its 2 checkpoints"])
    tap.ok("--fresh" in got["why"], "none is good: what helps", got)

    # a results file: done, although checkpoints of before are still there
    library_file(path, "generate", 17, 0)
    os.remove(path + ".ckpt-1")
    os.remove(path + ".ckpt-2")
    got = status(path, 0, "done", ["done", "17 requests, 3 failed", "2026-01-31T12:01:00Z", "10.5 s of work",
                                   "went on from a checkpoint 2 times"])
    tap.equal(pick(got, "state", "done", "total", "failed_requests", "written", "resumes"),
              ["done", 17, 17, 3, "2026-01-31T12:01:00Z", 2], "done: JSON")
    checkpoint(path, 9)  # written later than the results: the job was started afresh
    got = status(path, 75, "started afresh", ["9 of 109 requests"])
    os.remove(path + ".ckpt-1")
    with open(path, "r+b") as f:
        f.truncate(3000)
    got = status(path, 65, "cut results", ["damaged"])
    tap.equal(pick(got, "state"), ["damaged"], "cut results: JSON")
    checkpoint(path, 9)
    status(path, 75, "cut results beside a checkpoint", ["9 of 109 requests"])
    status(STORIES, 65, "another kind of file", ["damaged", "no HDF5 file"])

    # as the run itself says
    out = os.path.join(folder, "run.h5")
    job = job_file(folder, f"""
job = "generate"; model: {{ path = "{STORIES}"; }}; input: {{ prompt = "Once"; }};
generate: {{ max_tokens = 4; }}; output: {{ file = "{out}"; }};
""")
    run = saf("run", job)
    tap.equal(run.returncode, 0, "a job runs")
    got = status(out, run.returncode, "after a run", ["done", "1 request, 0 failed"])

    for words, why in (((), "takes one file"), (("a", "b"), "takes one file"), (("a", "--jsn"), "what is")):
        run = saf("status", *words)
        tap.ok(run.returncode == 2 and why in run.stderr and not run.stdout, f"usage: {words}", run.stderr)
    run = saf("status", "--help")
    tap.ok(run.returncode == 0 and "75" in run.stdout and "--json" in run.stdout, "--help", run.stdout)
    tap.ok("saf status" in saf("--help").stdout, "saf --help lists it")
tap.exit()
