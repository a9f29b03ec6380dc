"""A product that is stopped, or killed, and goes on: on another number of ranks, to the same bits. With
SAF_TEST_MATMUL_LONG the campaign: SAF_TEST_KILLS (50) kills of a random rank at a random moment."""
import glob
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from matmul import Product, write  # noqa: E402
from resume import end, ranks_of, wait_until  # noqa: E402
from saftest import Tap, saf, scratch  # noqa: E402

tap = Tap()
LONG = bool(os.environ.get("SAF_TEST_MATMUL_LONG"))
KILLS = int(os.environ.get("SAF_TEST_KILLS", "50")) if LONG else 2
# Some hundred steps; C in rounds, so that tiles are done on the way; segments of k.
SHAPES = {"square": ('m = 2600; n = 2500; k = 2600; type = "f64"; seed = 3;', 0),
          "in rounds": ('m = 4200; n = 3600; k = 1200; beta = 0.5; seed = 4;', 190),
          "long": ('m = 300; n = 200; k = 200000; seed = 5;', 0)}


def whole(job):
    code, said = job.run(0, ["--fresh"])
    tap.equal(code, 0, "the product in one run") or print("#", said)
    sha = job.sha()
    job.clear()
    return sha


def stop(job, ranks, sent=signal.SIGUSR1, words=()):
    """Asked to stop once it has written another checkpoint, or is over."""
    p = job.start(ranks, words)
    last = len(job.checkpoints()) and int(job.checkpoints()[-1].rsplit("-", 1)[1])
    wait_until(lambda: os.path.exists(f"{job.out}.ckpt-{last + 1}"), p)
    if p.poll() is None:
        p.send_signal(sent)
    try:
        said = p.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        end(p)
        return "did not end", p.communicate()[1]
    return p.returncode, said


def chains(folder):
    for name, (text, memory) in SHAPES.items():
        job = Product(folder, text, memory=memory, every=0.05, name=name.replace(" ", "_"))
        sha = whole(job)
        stops = 0
        for ranks in (1, 2, 3, 4):
            code, said = stop(job, ranks)
            stops += code == 75
            tap.ok(code == 75 or (code == 0 and ranks > 1), f"{name}: stops on {ranks}", f"{code} {said}")
            if code == 0:
                break
        if stops and not os.path.exists(job.out):
            p = saf("status", job.out)
            tap.ok(p.returncode == 75 and "%" in p.stdout, f"{name}: saf status", p.stdout + p.stderr)
        code, said = job.run(2)
        tap.ok(code == 0 and job.sha() == sha, f"{name}: goes on to the same bits", f"{code} {said}")
        tap.equal(job.checkpoints(), [], f"{name}: and leaves no checkpoints")
        job.clear()


def kills(folder):
    text, memory = SHAPES["in rounds"]
    rng = random.Random(int(os.environ.get("SAF_TEST_SEED", "11")))
    job = Product(folder, text, memory=memory, every=0.05, name="killed")
    sha = whole(job)
    total = 0
    for i in range(KILLS):
        killed = 0
        for _ in range(12):
            ranks = rng.randint(1, 4)
            p = job.start(ranks, log=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.2, 0.2 + 0.4 * (1 + killed)))
            found = ranks_of(p)
            if p.poll() is None and found and (killed == 0 or rng.random() < 0.75):
                try:
                    os.kill(rng.choice(found), signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
            p.wait(timeout=120)
            end(p)
            if os.path.exists(job.out):
                break
        if not os.path.exists(job.out):
            code, said = job.run(rng.randint(1, 4))
            tap.equal(code, 0, f"kill {i}: goes on") or print("#", said)
        tap.ok(os.path.exists(job.out) and job.sha() == sha, f"kill {i}: the same bits after {killed} kills")
        job.clear()
        total += killed
    if LONG:
        tap.ok(total >= KILLS, f"{total} kills in {KILLS} jobs")


def refused(folder):
    text = 'm = 5000; n = 4800; k = 4000; type = "f64"; seed = 3;'  # far from its end when it is told to stop
    job = Product(folder, text, every=0.05, name="other")
    code, said = stop(job, 2)
    tap.equal(code, 75, "stopped") or print("#", said)
    kept = job.checkpoints()
    code, said = job.run(0, ["matmul.seed=9"])
    tap.ok(code == 65 and "matmul.seed was 3 and is 9" in said and job.checkpoints() == kept,
           "a checkpoint of another product is refused and stays", said)
    shutil.copy(kept[-1], kept[-1] + ".aside")
    with h5py.File(kept[-1], "r+") as f:
        f["state/cut"][2] += 16
    with open(kept[-1], "r+b") as f:
        f.seek(512)
        rest = f.read()
        f.seek(16)
        f.write(len(rest).to_bytes(8, "little") + hashlib.sha256(rest).digest())
    code, said = job.run(0, [])
    tap.ok(code == 65 and "cut into other tiles" in said and job.checkpoints() == kept,
           "one that was cut otherwise is refused and stays", f"{code} {said}")
    os.replace(kept[-1] + ".aside", kept[-1])
    code, said = stop(job, 0, signal.SIGTERM)
    tap.equal(code, 75, "told to end it saves what there is") or print("#", said)
    code, said = job.run(0, ["run.time_limit=1s", "checkpoint.every_seconds=0.0"])
    tap.ok(code in (0, 75), "a time limit", f"{code} {said}")


def lists(folder):
    """A list of matrices, begun over results of another job and stopped in its second product, goes on."""
    side = 3000
    name = write(os.path.join(folder, "in.h5"), "M", np.random.default_rng(5).standard_normal((side, side)) / side**0.5)
    listed = ", ".join([f'"{name}"'] * 4)
    job = Product(folder, f"chain = [{listed}];", every=0.05, name="listed")
    sha = whole(job)
    first, second = f"{job.out}.chain-1.h5", f"{job.out}.chain-2.h5"
    for _ in range(5):  # on a busy machine the third may hear of it: then again
        job.clear()
        other = Product(folder, "m = 5; n = 5; k = 5;", name="listed")
        other.run()
        was = other.sha()
        time.sleep(1.1)  # times in files are of whole seconds
        job = Product(folder, f"chain = [{listed}];", every=0.05, name="listed")
        p = job.start(2, ["--fresh"])
        wait_until(lambda: os.path.exists(f"{second}.ckpt-1"), p)
        p.send_signal(signal.SIGUSR1)
        said = p.communicate(timeout=120)[1]
        if p.returncode == 75 and not os.path.exists(second):
            break
    tap.ok(p.returncode == 75 and os.path.exists(first) and not os.path.exists(second) and job.sha() == was,
           "stops in the second product", f"{p.returncode} {said}")
    p = saf("status", job.out)
    tap.ok(p.returncode == 75 and "product 2 of a chain is" in p.stdout and "% done" in p.stdout, "saf status", p.stdout)
    p = saf("status", job.out, "--json")
    got = json.loads(p.stdout)
    tap.ok(got["state"] == "resumable" and got["chain_step"] == 2 and 0 <= got["done"] < got["total"],
           "saf status --json", p.stdout)
    kept = glob.glob(second + ".ckpt-*")
    for n in kept:
        os.rename(n, n.replace("listed", "away"))
    p = saf("status", job.out)
    tap.ok(p.returncode == 75 and "product 1 of a chain is done" in p.stdout, "saf status between two", p.stdout)
    for n in kept:
        os.rename(n.replace("listed", "away"), n)
    code, said = job.run(3)
    tap.ok(code == 0 and job.sha() == sha and "goes on from" in said, "goes on to the same bits", f"{code} {said}")
    tap.equal(glob.glob(job.out + ".*"), [], "and leaves nothing beside its results")
    tap.equal(saf("status", job.out).returncode, 0, "saf status of what is done")


for test in (chains, lists, refused, kills):
    with scratch() as folder:
        test(folder)
tap.exit()
