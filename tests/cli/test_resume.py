"""saf run of a job that was run before: finished, stopped on the way, or another one. However often it is
stopped, and with whatever ranks it goes on, the results are those of one run to the last bit."""
import os
import shutil
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from resume import LAYOUTS, Job, changed, stop  # noqa: E402
from saftest import STORIES, Tap, saf, scratch  # noqa: E402

tap = Tap()
LONG = bool(os.environ.get("SAF_TEST_RESUME_LONG"))


def uninterrupted(job):
    code, said = job.run()
    tap.equal(code, 0, "the job in one run")
    whole = job.results()
    job.clear()
    return whole


def goes_on(job, whole, chain):
    """Stops the job under one layout after the other; the last one finishes it."""
    name = " -> ".join(chain)
    for layout in chain[:-1]:
        ranks, words = LAYOUTS[layout]
        code, said = stop(job, ranks, words)
        if not tap.equal(code, 75, f"{name}: stops with 75 at {layout}"):
            print("#", said)
    ranks, words = LAYOUTS[chain[-1]]
    code, said = job.run(ranks, words)
    tap.ok(code == 0 and "goes on from" in said, f"{name}: goes on to the end", said)
    tap.ok(code == 0 and job.results() == whole, f"{name}: the same bits")
    tap.ok(code == 0 and job.attribute("resumes") == len(chain) - 1 and not job.checkpoints(),
           f"{name}: how often it went on is told, and its checkpoints are gone", said)
    job.clear()


def matrix(folder):
    job = Job(folder, logits=True)
    whole = uninterrupted(job)
    names = list(LAYOUTS)
    chains = [[a, b] for a in names for b in names] if LONG else [
        ["1 rank", "two replicas of 2 stages"],
        ["two replicas of 2 stages", "two parts", "1 rank"],
    ]
    for chain in chains:
        goes_on(job, whole, chain)


def scores(folder):
    job = Job(folder, kind="score", logits=True, prompts=400)
    whole = uninterrupted(job)
    goes_on(job, whole, ["two replicas", "1 rank"])


def finished(folder):
    """A job that is done is not run again; another one does not take its place."""
    job = Job(folder, tokens=20)
    code, _ = job.run()
    before = os.stat(job.out).st_mtime_ns
    for ranks in (0, 2):
        code, said = job.run(ranks)
        tap.ok(code == 0 and "nothing to compute" in said and os.stat(job.out).st_mtime_ns == before,
               f"a finished job computes nothing, with {ranks or 1} ranks", said)
    for words, name in ((["generate.max_tokens=21"], "generate.max_tokens was 20 and is 21"),
                        (["model.kv_type=q8_0"], "model.kv_type was"),
                        (["run.context=100"], "run.context was 0 and is 100"),
                        (["input.prompts=jobs/data/demo.txt"], "input was")):
        code, said = job.run(0, words)
        tap.ok(code == 65 and name in said and "--fresh" in said and
               os.stat(job.out).st_mtime_ns == before, f"another job is refused: {name}", said)
    code, said = job.run(0, ["generate.max_tokens=21", "--fresh"])
    tap.ok(code == 0 and os.stat(job.out).st_mtime_ns != before, "unless it is told to start over", said)
    code, said = job.run(0, ["generate.max_tokens=21", "run.sequences=2", "layout.threads=2",
                             "run.watchdog_seconds=10", "checkpoint.every_seconds=5"])
    tap.ok(code == 0 and "nothing to compute" in said, "how it is run makes it no other job", said)
    with open(job.out, "wb") as f:
        f.write(b"no results at all")
    code, said = job.run(0)
    tap.ok(code == 65 and "out.h5" in said, "what is no results file stays", said)


def one_prompt(folder):
    """The text of a single prompt is printed whole, however it came about."""
    words = ["input.prompt=Once upon a time", "generate.max_tokens=30", "generate.stop=[]",
             "generate.logprobs=0", f"output.file={folder}/one.h5"]
    job = Job(folder)
    first = saf("run", job.path, *words, again=True)
    second = saf("run", job.path, *words, again=True)
    tap.ok(first.returncode == 0 and len(first.stdout) > 20, "a prompt's text", first.stderr)
    tap.equal(second.stdout, first.stdout, "and again from the results")
    long = [*words, "generate.max_tokens=450", f"output.file={job.out}"]
    code, _ = stop(job, 0, long)
    tap.equal(code, 75, "it is stopped on the way")
    rest = saf("run", job.path, *long, again=True)
    whole = saf("run", job.path, *long, f"output.file={folder}/whole.h5", again=True)
    tap.ok(rest.returncode == 0 and rest.stdout == whole.stdout, "and printed from its beginning",
           f"{rest.stdout}\n{whole.stdout}\n{rest.stderr}")


def other_checkpoint(folder):
    """Checkpoints of another job, of another model, damaged ones."""
    job = Job(folder, prompts=36)  # long enough for three on a busy machine
    whole = uninterrupted(job)
    code, said = stop(job, checkpoints=3)
    tap.equal(code, 75, "stopped")
    kept = job.checkpoints()
    tap.equal(len(kept), 2, "two checkpoints are kept")
    code, said = job.run(0, ["generate.seed=8"])
    tap.ok(code == 65 and "generate.seed was 7 and is 8" in said and job.checkpoints() == kept,
           "a checkpoint of another job is refused and stays", said)
    changed = os.path.join(folder, "changed.gguf")
    with open(STORIES, "rb") as f:
        data = bytearray(f.read())
    data[-3] ^= 1
    with open(changed, "wb") as f:
        f.write(data)
    code, said = job.run(0, ["model.path=" + changed])
    tap.ok(code == 65 and "model was" in said, "so is one of another model, a bit of a weight apart", said)
    with open(kept[1], "r+b") as f:
        f.seek(os.path.getsize(kept[1]) // 2)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 4]))
    code, said = job.run(0)
    tap.ok(code == 0 and os.path.basename(kept[0]) in said and "warning" in said,
           "after a damaged checkpoint the one before serves", said)
    tap.ok(job.results() == whole, "with the same bits")
    job.clear()
    stop(job)
    for name in job.checkpoints():
        with open(name, "r+b") as f:
            f.truncate(1000)
    code, said = job.run(0)
    tap.ok(code == 65, "damaged ones alone are an error", said)
    code, said = job.run(0, ["--fresh"])
    tap.ok(code == 0 and job.results() == whole and not job.checkpoints(), "that --fresh leaves behind", said)


def foreign_values(folder):
    """What a checkpoint holds is of a saf that counts otherwise, or cannot be: refused by name, and it stays."""
    job = Job(folder)
    code, said = stop(job, checkpoints=2)
    last = job.checkpoints()[-1]
    tap.ok(code == 75 and f"; {last}: the same command goes on" in said, "the checkpoint is named", said)

    def numbers(f):
        names, values = list(f["identity/names"].asstr()), f["identity/values"]
        tap.equal(names[:2], ["job", "numbers"], "the arithmetic is part of the identity")
        values[1] = "0"

    def no_token(f):
        f["state/tokens"][0] = 512

    def no_alternative(f):
        f["state/top_ids"][-1] = -1

    with open(last, "rb") as f:
        good = f.read()
    for change, line in ((numbers, "numbers was 0 and is 3"), (no_token, "a token that the model has not"),
                         (no_alternative, "a token that the model has not")):
        with open(last, "wb") as f:
            f.write(good)
        changed(last, change)
        code, said = job.run()
        tap.ok(code == 65 and line in said and os.path.basename(last) in said and job.checkpoints()[-1] == last,
               f"{change.__name__}: refused", f"exit {code}\n{said}")
    with open(last, "wb") as f:
        f.write(good)
    code, said = job.run()
    tap.ok(code == 0 and "goes on from " + last in said, "as it was it serves", said)


def fresh(folder):
    """--fresh gives up earlier work only for work of its own."""
    job = Job(folder)
    code, _ = stop(job, checkpoints=2)
    kept = job.checkpoints()
    spare = {}
    for name in kept:
        with open(name, "rb") as f:
            spare[name] = f.read()
    for _ in range(10):  # on a busy machine it may have got somewhere before it hears of it
        code, said = stop(job, 0, ["--fresh", "checkpoint.every_seconds=0"], after=0, sent=signal.SIGTERM)
        if "before there was anything to keep" in said:
            break
        job.clear()
        for name, data in spare.items():
            with open(name, "wb") as f:
                f.write(data)
    tap.ok(code == 1 and job.checkpoints() == kept, "a mistaken --fresh that is ended at once costs nothing", said)
    code, said = stop(job, 0, ["--fresh"], checkpoints=2)
    tap.ok(code == 75 and not set(kept) & set(job.checkpoints()), "its own checkpoints take their place", said)
    shutil.rmtree(folder + "/none", ignore_errors=True)


def time_limit(folder):
    job = Job(folder, tokens=480, prompts=40)
    code, said = job.run(0, ["run.time_limit=2s"])
    tap.ok(code == 75 and "stopped in time" in said and len(job.checkpoints()) > 0,
           "a time limit stops the job", said)
    code, said = job.run(0, ["run.time_limit=1:2:3:4"])
    tap.ok(code == 2 and "run.time_limit" in said, "a limit that is none is an error", said)


with scratch() as folder:
    matrix(folder)
if not LONG:
    for case in (scores, finished, one_prompt, other_checkpoint, foreign_values, fresh, time_limit):
        with scratch() as folder:
            case(folder)
tap.exit()
