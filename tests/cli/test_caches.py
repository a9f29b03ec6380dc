"""checkpoint.kv: the caches of requests on their way are kept when a job is stopped and taken up by any other
layout: nothing of them is computed again, the bits are the same, and files that are damaged or gone cost time
alone. What saf writes is also read by h5py."""
import glob
import os
import re
import signal
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from inject import INJECTOR  # noqa: E402
from resume import LAYOUTS, Job, stop  # noqa: E402
from saftest import NO_COUNTERS, SAF, Tap, scratch, watched  # noqa: E402

tap = Tap()
LAYOUTS = dict(LAYOUTS, **{"pipeline of 3": (3, ["layout.pipeline=3"]), "four parts": (4, ["layout.tensor=4"])})
LAYERS, HEADS, WIDTH = 5, 4, 8  # of the model: key heads, and channels of each


class Long(Job):
    """Prompts of some hundred tokens, so that it shows when they are computed again."""

    def __init__(self, folder, kv_type="f16", **more):
        super().__init__(folder, tokens=240, prompts=8, every=0, **more)
        with open(os.path.join(folder, "prompts.txt"), "w", encoding="ascii") as f:
            for i in range(8):
                f.write(f"There were {i} children who " + "walked home and " * (20 + i) + "saw\n")
        self.words = [f"model.kv_type={kv_type}", "checkpoint.kv=true", "run.trace=true", "run.chunk=32"]

    def command(self, ranks=0, words=()):
        return super().command(ranks, [*self.words, *words])

    def caches(self):
        return sorted(glob.glob(self.out + ".ckpt-*.kv*"))

    def state(self):
        """All files, to begin from the same stop again."""
        kept = {}
        for name in glob.glob(self.out + "*"):
            with open(name, "rb") as f:
                kept[name] = f.read()
        return kept

    def set_state(self, kept):
        self.clear()
        for name, data in kept.items():
            with open(name, "wb") as f:
                f.write(data)

    def fed(self):
        """Rows that went through the first stage in the last run."""
        with h5py.File(self.out, "r") as f:
            rows, ranks = f["timeline"][:], f["ranks"][:]
        first = [r["rank"] for r in ranks if r["stage"] == 0 and r["part"] == 0]
        rows = rows[(rows["kind"] == b"compute") & np.isin(rows["rank"], first)]
        return int(rows["tokens"].sum())


def whole_of(folder, kv_type):
    job = Long(folder, kv_type)
    code, said = job.run()
    tap.equal(code, 0, f"{kv_type}: in one run")
    found = job.results()
    job.clear()
    return found


def restored(said):
    found = re.search(r"caches of (\d+) requests? restored: (\d+) positions", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def stopped(job, layout, name, after=0.9):
    ranks, words = LAYOUTS[layout]
    for wait in (after / 3, after, after / 9, 2 * after, after / 27):
        code, said = stop(job, ranks, words, after=wait, sent=signal.SIGUSR1)
        if code == 75 and job.caches():
            break
        job.clear()
    tap.ok(code == 75 and "kept the caches of" in said and len(job.caches()) > 1,
           f"{name}: the caches are kept", f"exit {code}\n{said}")
    return job.state()


def same(job, whole, layout, name, line):
    """Goes on; what it said."""
    ranks, words = LAYOUTS[layout]
    code, said = job.run(ranks, words)
    tap.ok(code == 0 and line in said, f"{name}: goes on, \"{line}\"", f"exit {code}\n{said}")
    tap.ok(code == 0 and job.results() == whole, f"{name}: the same bits")
    tap.equal(glob.glob(job.out + ".*"), [], f"{name}: nothing is left")
    return said


def chain(folder, whole, kv_type, before, after):
    name = f"{kv_type}, {before} -> {after}"
    job = Long(folder, kv_type)
    state = stopped(job, before, name)
    said = same(job, whole, after, name, "restored")
    requests, positions = restored(said)
    fed = job.fed()
    job.set_state(state)
    for path in job.caches():
        os.unlink(path)
    said = same(job, whole, after, name + ", without them", "goes on from")
    tap.ok(restored(said) == (0, 0) and requests > 0 and positions > 20 * requests,
           f"{name}: {requests} requests have {positions} positions", said)
    tap.equal(job.fed() - fed, positions, f"{name}: so many rows less are computed")
    job.clear()


def damaged(folder, whole):
    job = Long(folder)
    state = stopped(job, "2 stages of 2", "damaged")
    caches = job.caches()
    tap.equal(len(caches), 5, "four ranks wrote, and one file joins them")
    for path in (caches[0], caches[-1]):
        for way in ("flipped", "cut", "gone"):
            job.set_state(state)
            size = os.path.getsize(path)
            if way == "gone" and path == caches[0]:
                continue
            if way == "gone":
                os.unlink(path)
            elif way == "cut":
                os.truncate(path, size - 7)
            else:
                with open(path, "r+b") as f:
                    f.seek(size - size // 3)
                    byte = f.read(1)
                    f.seek(-1, 1)
                    f.write(bytes([byte[0] ^ 1]))
            name = f"{os.path.basename(path)} is {way}"
            said = same(job, whole, "pipeline of 2", name, "caches are computed again")
            tap.ok("warning" in said and restored(said) == (0, 0) and os.path.basename(path) in said,
                   f"{name}: a warning", said)
    job.set_state(state)
    code, said = job.run(0, ["checkpoint.kv=false"])
    tap.ok(code == 0 and restored(said) == (0, 0) and job.results() == whole, "unless they are not wanted", said)
    job.clear()


def read(folder):
    """h5py sees the caches of all layers and heads as one array, and where each byte of it is from."""
    job = Long(folder)
    stopped(job, "two replicas of 2 stages", "h5py")
    checkpoint = job.checkpoints()[-1]
    good, total = True, 0
    with h5py.File(checkpoint + ".kv", "r") as f:
        layer0, layers = f["state/source_layer0"][:], f["state/source_layers"][:]
        sets = dict(zip(f["state/row"][:], f["state/set"][:]))
        positions = dict(zip(f["state/row"][:], f["state/positions"][:]))
        for row, data in f["kv"].items():
            row = int(row)
            good = good and data.is_virtual and data.shape == (LAYERS, 2, HEADS, positions[row], 2 * WIDTH)
            for i, rank in enumerate(f["state/source_rank"][:]):
                if f["state/source_set"][i] != sets[row]:
                    continue
                with h5py.File(f"{checkpoint}.kv-{rank}", "r") as source:
                    part = source[f"kv/{row}"][:]
                good = good and np.array_equal(data[layer0[i]:layer0[i] + layers[i]], part)
                total += part.size
            values = data[:].view(np.float16)
            good = good and np.isfinite(values).all() and (values != 0).mean() > 0.9
    tap.ok(good and total > 0, "h5py reads them", total)
    sizes = sum(os.path.getsize(p) for p in job.caches())
    tap.ok(total < sizes < total + 200000, "and they are no larger than they must be", (total, sizes))
    tap.ok(all(os.stat(p).st_mode & 0o7777 == 0o600 for p in job.caches()), "for their owner alone")
    job.clear()


def twice(folder, whole):
    """Stopped again and again, the first time before there is a token: what was computed of a prompt counts."""
    job = Long(folder)
    names, requests = ["1 rank", "pipeline of 3", "two replicas", "two parts"], 0
    for i in range(12):
        ranks, words = LAYOUTS[names[i % 4]]
        code, said = stop(job, ranks, words, after=0.4 + 0.2 * (i % 3))
        requests += restored(said)[0]
        if code != 75:
            break
        numbers = {re.search(r"ckpt-(\d+)", n)[1] for n in job.caches()}
        if len(numbers) > 2:
            tap.ok(False, "caches go with their checkpoints", job.caches())
    if code == 75:
        code, said = job.run()
    tap.ok(code == 0 and requests > 0 and job.results() == whole, f"stopped {i} times, the same bits", said)
    job.clear()


def unreadable(folder, whole, kv_type, before, after):
    """Files that were good when they were looked at and cannot be read when they are needed: the last
    read of such a file fails on the rank that reads most, or one shortly before."""
    name = f"{kv_type}, {before} -> {after}, unreadable"
    if watched():
        tap.skip(name, "the address sanitizer wants to be loaded first")
        return
    job = Long(folder, kv_type)
    state = stopped(job, before, name)
    ranks, words = LAYOUTS[after]
    plain, report = job.command, os.path.join(folder, "report")

    def command(k):
        words = ["env", "LD_PRELOAD=" + INJECTOR, "GOMP_SPINCOUNT=1000", "SAF_INJECT_KIND=read", f"SAF_INJECT_K={k}",
                 "SAF_INJECT_FILE=.kv",
                 "SAF_INJECT_ERROR=EIO", "SAF_INJECT_REPORT=" + report]

        def with_fault(ranks=0, more=()):
            found = plain(ranks, more)
            at = found.index(SAF)
            return found[:at] + words + found[at:]
        return with_fault

    job.command = command(0)
    code, said = job.run(ranks, words)
    with open(report, encoding="ascii") as f:
        reads = max(int(line.split()[2]) for line in f if line.startswith("count read"))
    tap.ok(code == 0 and restored(said)[0] > 0 and job.results() == whole, f"{name}: all is read", said)
    line = re.compile(r"the caches of request \d+ are computed again: ")
    for k in range(reads, max(0, reads - 30), -3):
        job.set_state(state)
        job.command = command(k)
        code, said = job.run(ranks, words)
        if line.search(said):
            break
    tap.ok(code == 0 and line.search(said) and "warning" in said and job.results() == whole,
           f"{name}: the same bits when read {k} of {reads} fails", f"exit {code}\n{said}")
    tap.equal(glob.glob(job.out + ".*"), [], f"{name}: nothing is left")
    job.command = plain
    job.clear()


def no_room(folder, whole):
    """Where the files cannot be written the job is stopped as ever."""
    job = Long(folder)
    plain = job.command
    job.command = lambda ranks=0, words=(): ["bash", "-c", NO_COUNTERS + "ulimit -f 80; exec \"$@\"", "-", *plain(ranks, words)]
    for wait in (0.3, 0.9, 0.1, 1.8):
        code, said = stop(job, after=wait)
        if code == 75 and job.checkpoints():
            break
        job.clear()
    tap.ok(code == 75 and "caches are not kept" in said and len(job.checkpoints()) == 1 and not job.caches(),
           "caches that cannot be kept are a warning", f"exit {code}\n{said}\n{job.caches()}")
    job.command = plain
    same(job, whole, "1 rank", "without room", "goes on from")
    job.clear()


def elsewhere(folder, whole):
    """Ranks that do not see the folder of the output, as on another host."""
    here, there, empty = (os.path.join(folder, name) for name in ("here", "there", "empty"))
    os.makedirs(here + "/out")
    os.makedirs(there + "/out")
    os.makedirs(empty)
    job = Long(folder)
    job.out = os.path.join(here, "out", "out.h5")
    plain = job.command

    def command(second):
        def words(ranks=0, more=()):
            one = plain(0, ["output.file=out/out.h5", *more])
            return ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "1", "-wdir", here, *one,
                    ":", "-np", "1", "-wdir", second, *one]
        return words

    for second, name in ((there, "it has a folder of its own"), (empty, "it has none")):
        job.command = command(second)
        for wait in (0.9, 1.5, 0.4):
            code, said = stop(job, after=wait)
            if code == 75 and "caches" in said:
                break
            job.clear()
        left = [path for path in glob.glob(folder + "/*/out/*") if ".kv" in path]
        tap.ok(code == 75 and said.count("caches are not kept") == 1 and len(job.checkpoints()) == 1 and not left,
               f"a rank elsewhere, {name}: no caches", f"exit {code}\n{said}\n{left}")
        job.clear()
    job.command = command(here)
    state = stopped(job, "1 rank", "two ranks in one folder")
    for second in (there, empty):
        job.set_state(state)
        job.command = command(second)
        said = same(job, whole, "1 rank", "a rank elsewhere goes on", "caches are computed again")
        tap.equal(said.count("warning"), 1, "with one warning")
    job.clear()


with scratch() as folder:
    whole = whole_of(folder, "f16")
    chain(folder, whole, "f16", "pipeline of 2", "two parts")
    chain(folder, whole, "f16", "four parts", "pipeline of 3")
    damaged(folder, whole)
    twice(folder, whole)
    elsewhere(folder, whole)
    read(folder)
    no_room(folder, whole)
    unreadable(folder, whole, "f16", "1 rank", "two parts")
    whole = whole_of(folder, "f32")
    chain(folder, whole, "f32", "1 rank", "pipeline of 3")
    whole = whole_of(folder, "q8_0")
    chain(folder, whole, "q8_0", "two replicas", "1 rank")
    unreadable(folder, whole, "q8_0", "two parts", "1 rank")
tap.exit()
