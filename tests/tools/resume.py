"""What the tests of checkpoints share: a job of a few seconds that is stopped or killed on its way, and
goes on with other ranks and another layout."""
import glob
import hashlib
import os
import random
import signal
import subprocess
import time

import h5py

from saftest import ENV, ROOT, SAF, STORIES, job_file

JOB = """
job = "{kind}";
model: {{ path = "%s"; }};
input: {{ %s = "{input}"; }};
{settings}
layout: {{ threads = 1; }};
run: {{ sequences = 3; }};
checkpoint: {{ every_seconds = {every}; }};
output: {{ file = "{out}"; }};
"""
# Sampled, with stop strings, alternatives and logits: all that a checkpoint holds.
GENERATE = """generate: {{ max_tokens = {tokens}; temperature = 0.8; repeat_penalty = 1.1; seed = 7;
    stop = ["little dog", "mommy"]; ignore_eos = true; logprobs = 2; logits = {logits}; }};"""
LAYOUTS = {
    "1 rank": (0, []),
    "pipeline of 2": (2, ["layout.pipeline=2"]),
    "two replicas": (2, ["layout.replicas=2"]),
    "two parts": (2, ["layout.tensor=2"]),
    "2 stages of 2": (4, ["layout.pipeline=2", "layout.tensor=2"]),
    "two replicas of 2 stages": (4, ["layout.replicas=2", "layout.pipeline=2"]),
}


class Job:
    """A job in a folder of its own; run() starts saf again with the same command."""

    def __init__(self, folder, tokens=400, prompts=12, every=0.02, logits=False, kind="generate"):
        self.out = os.path.join(folder, "out.h5")
        texts = os.path.join(folder, "prompts.txt")
        with open(texts, "w", encoding="ascii") as f:
            for i in range(prompts):
                f.write(f"Once upon a time there were {i} children who " + "walked and " * (i % 5) + "saw\n")
        settings = "" if kind == "score" else GENERATE.format(tokens=tokens, logits=str(logits).lower())
        if kind == "score":
            settings = f"score: {{ logits = {str(logits).lower()}; }};"
        text = JOB % (STORIES, "texts" if kind == "score" else "prompts")
        self.path = job_file(folder, text.format(kind=kind, input=texts, every=every, out=self.out,
                                                 settings=settings))

    def command(self, ranks=0, words=()):
        words = [SAF, "run", self.path, *words]
        if ranks:
            words = ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", *words]
        return words

    def start(self, ranks=0, words=(), log=None):
        """A process group of its own, so that whatever is left of it can be found."""
        return subprocess.Popen(self.command(ranks, words), cwd=ROOT, text=True, errors="replace",
                                env=dict(ENV, SAF_KERNELS="scalar"), start_new_session=True,
                                stdout=subprocess.DEVNULL, stderr=log or subprocess.PIPE)

    def run(self, ranks=0, words=(), timeout=300):
        p = self.start(ranks, words)
        said = p.communicate(timeout=timeout)[1]
        return p.returncode, said

    def checkpoints(self):
        """Those with their final names, newest last."""
        names = [n for n in glob.glob(self.out + ".ckpt-*") if n.rsplit("-", 1)[1].isdigit() and ".kv" not in n]
        return sorted(names, key=lambda n: int(n.rsplit("-", 1)[1]))

    def results(self):
        """What must be the same however often the job was stopped."""
        with h5py.File(self.out, "r") as f:
            hashes = [f.attrs.get("tokens_sha256"), f.attrs.get("logits_sha256")]
            rest = [f[name][...].tobytes() for name in ("logprobs/values", "logprobs/top_ids") if name in f]
            return hashes, rest

    def attribute(self, name):
        with h5py.File(self.out, "r") as f:
            return f.attrs[name]

    def clear(self):
        for name in glob.glob(self.out + "*"):
            os.unlink(name)


def changed(path, change):
    """Calls change(an open HDF5 file) and seals it again: what passes its checksum and is not what saf wrote."""
    with h5py.File(path, "r+") as f:
        change(f)
    with open(path, "r+b") as f:
        rest = f.read()[512:]
        f.seek(16)
        f.write(len(rest).to_bytes(8, "little") + hashlib.sha256(rest).digest())


def wait_until(there, p, seconds=60):
    """Polls until there() or the process has ended; whether the former came first."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if there():
            return True
        if p.poll() is not None:
            return False
        time.sleep(0.001)
    return False


def until_it_computes(p):
    """What a job says until its model is loaded, or it ends."""
    said = ""
    for line in p.stderr:
        said += line
        if "to go" in line:
            break
    return said


def stop(job, ranks=0, words=(), after=None, sent=signal.SIGUSR1, checkpoints=1):
    """Starts the job and asks it to stop: `after` seconds of computing, or once it has written so many
    more checkpoints. Returns exit code and what it said."""
    p = job.start(ranks, words)
    said = ""
    if after is not None:
        said = until_it_computes(p)
        time.sleep(after)
    else:
        last = len(job.checkpoints()) and int(job.checkpoints()[-1].rsplit("-", 1)[1])
        wait_until(lambda: os.path.exists(f"{job.out}.ckpt-{last + checkpoints}"), p)
    if p.poll() is None:
        p.send_signal(sent)
    try:
        said += p.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        end(p)
        return "did not end", said + p.communicate()[1]
    return p.returncode, said


def members(p):
    """Processes of its session that still run: the ranks have groups of their own."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            if int(fields[3]) == p.pid and fields[0] != "Z":
                found.append(int(entry))
        except (OSError, IndexError, ValueError):
            pass
    return found


def end(p):
    for pid in members(p):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def ranks_of(p):
    """The ranks that mpirun started; the process itself where there is none."""
    found = []
    for pid in members(p):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as f:
                if f.read().strip() == "saf":
                    found.append(pid)
        except OSError:
            pass
    return sorted(found)


def shuffled(seed):
    return random.Random(seed)
