"""saf run when ranks are lost: killed, stopped, hanging. The job ends everywhere, in seconds, with one
message that names rank and host."""
import os
import re
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from processes import is_running, ranks_of, wait_until  # noqa: E402
from saftest import ENV, ROOT, SAF, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
RANKS = 4
WATCHDOG_S = 2
START_S = 20  # it is patient until the ranks know each other
HOST = socket.gethostname()


class Job:
    """A job under way over RANKS ranks."""

    def __init__(self, folder, model, *words):
        self.pids = []
        job = job_file(folder, f'job = "generate"; model: {{ path = "{model}"; }};')
        self.out = f"{folder}/out.h5"
        self.log = f"{folder}/log"
        with open(self.log, "wb") as log:
            self.mpirun = subprocess.Popen(
                ["mpirun", "-np", str(RANKS), "--oversubscribe", "--bind-to", "none", SAF, "run", "--fresh", job,
                 "generate.max_tokens=3000", "generate.ignore_eos=true",
                 "layout.threads=1", f"run.watchdog_seconds={WATCHDOG_S}",
                 f"output.file={self.out}", *words], cwd=ROOT, env=ENV, stdout=log, stderr=log)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def end(self, seconds):
        """mpirun's exit code (None: not within that time), how long it took, what was said, and
        which processes are left then."""
        begin = time.time()
        code = None
        try:
            code = self.mpirun.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        wait_until(lambda: not any(map(is_running, self.pids)), begin + 8 - time.time())
        took = time.time() - begin
        left = [pid for pid in self.pids if is_running(pid)]
        if code is None:
            self.mpirun.kill()
            self.mpirun.wait()
        for pid in left:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        for path in self.out, self.out + ".part":
            if os.path.exists(path):
                os.remove(path)
                if path == self.out:
                    left.append(path)
        return code, took, self.said(), left

    def find_ranks(self):
        def all_there():
            self.pids = ranks_of(self.mpirun.pid)
            return len(self.pids) == RANKS

        wait_until(lambda: all_there() or self.mpirun.poll() is not None)
        if len(self.pids) == RANKS:
            return True
        return tap.ok(False, f"{RANKS} ranks are running", f"{self.pids}: {self.said()}")


def start(folder, model, phase, after_s, *words):
    """A job whose ranks are in this phase; None if it does not get there."""
    job = Job(folder, model, "input.prompts=jobs/data/prompts.txt", *words)
    found = job.find_ranks()
    there = wait_until(lambda: os.path.exists(job.out + ".part"))  # made just before the ranks load
    if phase == "running":
        there = wait_until(lambda: "loaded" in job.said())
    time.sleep(after_s)
    if found and there:
        return job
    job.end(0)
    return None


def kill(folder, model, rank, phase, *words):
    job = start(folder, model, phase, 0.1, *words)
    if not job:
        return
    os.kill(job.pids[rank], signal.SIGKILL)
    code, took, said, left = job.end(20)
    names = re.findall(r"process rank (\d+) with PID \d+ on node (\S+) exited on signal 9", said)
    tap.ok(code not in (None, 0) and took < 5 and not left and names == [(str(rank), HOST)] and
           "error: " not in said, " ".join((f"rank {rank} is killed while {phase}", *words)),
           f"exit {code} after {took:.1f} s, left {left}: {said}")


def stop(folder, model, rank, phase, *words):
    """A fast machine may have loaded before the rank is stopped, a slow one not have begun."""
    for after_s in 0.05, 0.02, 0.1, 0.01, 0.15, 0:
        job = start(folder, model, phase, after_s, *words)
        if not job:
            return
        os.kill(job.pids[rank], signal.SIGSTOP)
        code, took, said, left = job.end(30)
        if phase == "running" or not re.search("while (opening|running)", said):
            break
    expected = f"error: rank {rank} on {HOST} has not answered for {WATCHDOG_S} seconds, while {phase}:"
    tap.ok(code == 124 and took < 1.25 * WATCHDOG_S + 5 and not left and
           said.count("error: ") == 1 and expected in said,
           " ".join((f"rank {rank} is stopped while {phase}", *words)),
           f"exit {code} after {took:.1f} s, left {left}: {said}")


def hanging(folder, model):
    """Rank 0 hangs in a system call: it reads prompts from a pipe that nobody writes to."""
    pipe = f"{folder}/prompts.txt"
    os.mkfifo(pipe)
    job = Job(folder, model, f"input.prompts={pipe}")
    if not job.find_ranks():
        job.end(0)
        return
    code, took, said, left = job.end(30)
    expected = (f"error: rank 0 on {HOST} hangs: it has not got on for {WATCHDOG_S} seconds, while "
                "opening")
    tap.ok(code == 124 and not left and said.count("error: ") == 1 and expected in said,
           "rank 0 hangs while opening", f"exit {code} after {took:.1f} s, left {left}: {said}")


def stop_at_start(folder, model, rank, after_s):
    """Before the ranks know each other none of them can be named, but the job ends all the same."""
    job = Job(folder, model, "input.prompts=jobs/data/prompts.txt")
    if not job.find_ranks():
        job.end(0)
        return
    time.sleep(after_s)
    os.kill(job.pids[rank], signal.SIGSTOP)
    code, took, said, left = job.end(60)
    tap.ok(code == 124 and took < START_S + 15 and not left and said.count("error: ") == 1 and
           re.search(rf"error: rank \d on {HOST} has (waited in|not answered).*\(watchdog\)", said),
           f"rank {rank} is stopped {after_s} s after all have started",
           f"exit {code} after {took:.1f} s, left {left}: {said}")


def make(path, shape):
    made = saf("model", "make", path, "--arch", "qwen3", "--shape", shape, "--type", "f16", "--seed", 1)
    return tap.ok(made.returncode == 0, f"a model of {shape} is made", made.stderr)


with scratch() as scratch_folder:
    large, small = (os.path.join(scratch_folder, name) for name in ("large.gguf", "small.gguf"))
    if make(large, "16:1024:16:8:64:3072") and make(small, "16:256:4:2:64:768"):
        for number in 0, 3:
            kill(scratch_folder, large, number, "loading")
        for number in 1, 2:
            stop(scratch_folder, large, number, "loading")
        for number in range(RANKS):
            kill(scratch_folder, small, number, "running")
            stop(scratch_folder, small, number, "running")
        kill(scratch_folder, small, 3, "running", "layout.replicas=4")
        stop(scratch_folder, small, 0, "running", "layout.replicas=2")
        stop_at_start(scratch_folder, small, 2, 0)
        hanging(scratch_folder, small)
tap.exit()
