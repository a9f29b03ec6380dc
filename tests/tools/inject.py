"""Faults injected into saf (tests/tools/inject.c): counts the calls of a command, makes each fail in turn,
and says what is wrong with how it ended.

A Case is a command with the files it needs; how to point this at something new:

    case = Case("generate", prepare, ["run", "job.cfg", "--quiet"], problem)
    faults = Campaign(case).run(every=1)

A job that goes on from a checkpoint: Resumed, a Case of which every failed run must leave a checkpoint that is
as good as the one it began with, and from which the next run gets the right results.

prepare(folder) fills an empty folder once, and every worker gets a copy; problem(folder, process, good) says
what is wrong with a run that ended with exit code 0, or None. A run may fail, with a documented exit
code and a message, or succeed with the right result; it may not crash, hang, succeed without its result,
change an older result without replacing it, or leave something behind (Case.leaves names what is allowed)."""
import collections
import concurrent.futures
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading

from saftest import ENV, ROOT, SAF

INJECTOR = os.path.join(ROOT, os.environ.get("BUILD", "build"), "inject.so")
HANG_S = 5
# What is made to fail and how. STICKY: from the k-th call on, all of them.
ERRORS = {
    "open": [("EIO", 0), ("EMFILE", 0), ("EMFILE", 1)],
    "read": [("EIO", 0), ("EIO", 1), ("EINTR", 0), ("SHORT", 0), ("SHORT", 1)],
    "write": [("EIO", 0), ("ENOSPC", 0), ("ENOSPC", 1), ("EINTR", 0), ("SHORT", 0), ("SHORT", 1)],
    "fsync": [("EIO", 0), ("ENOSPC", 0)],
    "rename": [("EIO", 0), ("ENOSPC", 0)],
    "close": [("EIO", 0), ("ENOSPC", 1)],
    "truncate": [("EIO", 0), ("ENOSPC", 1)],
    "mmap": [("ENOMEM", 0), ("ENOMEM", 1)],
    "malloc": [("ENOMEM", 0), ("ENOMEM", 1)],
    "library": [("ENOMEM", 0), ("ENOMEM", 1)],
    "stat": [("EIO", 0), ("EIO", 1)],
    "unlink": [("EIO", 0)],
    "lock": [("EIO", 0)],
    "thread": [("EIO", 0)],
}
MEMORY = ("mmap", "malloc", "thread", "space")
# An error of the machine: failed at run time, an input or output error, an output that cannot be made.
# Not 2, 65, 66 or 70: nothing is wrong with the job, the files or the program.
# A file without its name's lock, or one that cannot be removed, stays; what counts is the next run.
LEAVE = ("unlink", "stat")
AGAIN = (*LEAVE, "library")
KINDS = (*ERRORS, "space")  # the last: ever less address space, to the MiB
CODES = {kind: ({1} if kind in MEMORY else {73, 74}) for kind in KINDS}
# HDF5 and libconfig without memory (inject.c says why): of so many calls one is tried, and saf may crash,
# but not harm anything.
LIBRARY_EVERY = 100

Fault = collections.namedtuple("Fault", "kind k error sticky code problem stack message")


class Case:
    def __init__(self, name, prepare, words, problem, outputs=(), stdin=None):
        self.name, self.prepare, self.words, self.problem = name, prepare, words, problem
        self.outputs = outputs  # files that the command makes
        self.stdin = stdin
        self.code = 0         # of a good run
        self.settings = {}    # of inject.so, beside the fault
        self.kinds = KINDS
        self.good_again = 20  # after every so many failed runs another one must do well

    def may_leave(self, name, code):
        return False

    def lost(self, folder, inputs):
        """What a run that did not end with 0 has taken from the next one, or None."""


class Resumed(Case):
    """Goes on from OUTPUT.ckpt-N, of which there are some among its files; asked to stop: by the first call
    of the kind, which is the one that makes its own first checkpoint durable."""

    def __init__(self, name, prepare, words, problem, output, stop=None):
        super().__init__(name, prepare, words, problem, [output])
        self.good_again = 1
        self.pattern = re.compile(re.escape(output) + r"\.ckpt-([1-9][0-9]*)")
        if stop:
            self.code = 75
            self.settings = {"STOP": stop}
            self.kinds = tuple(k for k in KINDS if k != "space")  # there without inject.so

    def may_leave(self, name, code):
        return code != 0 and self.pattern.fullmatch(name)

    def number(self, name):
        found = self.pattern.fullmatch(name)
        return int(found[1]) if found else 0

    def lost(self, folder, inputs):
        if os.path.exists(os.path.join(folder, self.outputs[0])):
            return None
        newest = max(inputs, key=self.number)
        for name in os.listdir(folder):
            if self.number(name) < self.number(newest):
                continue
            with open(os.path.join(folder, name), "rb") as f:
                data = f.read()
            if name == newest and data != inputs[name]:
                return f"changed {name}, which was there before"
            if data[24:56] == hashlib.sha256(data[512:]).digest():
                return None
        return f"{newest}, which was there before, is gone, and nothing is in its place"


class Worker:
    """A folder of its own, in which one fault is tried after the other."""

    def __init__(self, case, original):
        self.case = case
        self.folder = tempfile.mkdtemp(prefix="saf-inject-")
        self.report = self.folder + ".report"
        shutil.copytree(original, self.folder, dirs_exist_ok=True)
        self.inputs = {n: self.content(n) for n in os.listdir(self.folder)}
        self.tried = 0

    def content(self, name):
        with open(os.path.join(self.folder, name), "rb") as f:
            return f.read()

    def close(self):
        shutil.rmtree(self.folder)
        if os.path.exists(self.report):
            os.unlink(self.report)

    def start(self, settings, limit):
        """The finished process and the report's lines; None if it did not end."""
        if os.path.exists(self.report):
            os.unlink(self.report)
        if settings.get("KIND") == "space":
            return self.start_in(settings["K"], self.case.words, limit), [["hit"]]
        # saf starts itself again unless this is set, and calls would be counted twice.
        env = dict(ENV, LD_PRELOAD=INJECTOR, GOMP_SPINCOUNT="1000", SAF_INJECT_REPORT=self.report,
                   **{"SAF_INJECT_" + key: str(value)
                      for key, value in {**settings, **(self.case.settings if "KIND" in settings else {})}.items()})
        try:
            done = subprocess.run([SAF, *self.case.words], cwd=self.folder, env=env,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return None, []
        lines = []
        if os.path.exists(self.report):
            with open(self.report, encoding="ascii") as f:
                lines = [line.split() for line in f]
        return done, lines

    def start_in(self, mib, words, limit):
        """With so much address space, which is memory that runs out for good and not for one call."""
        command = ["prlimit", f"--as={mib << 20}", SAF, *words]
        try:
            return subprocess.run(command, cwd=self.folder, env=dict(ENV, GOMP_SPINCOUNT="1000"),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return None

    def least_mib(self, words):
        """The address space in which a command works."""
        low, high = 1, 1 << 14
        while low < high:
            middle = (low + high) // 2
            done = self.start_in(middle, words, 60)
            self.restore()
            if done is None:
                raise RuntimeError(f"saf {' '.join(words)} hangs in {middle} MiB of address space")
            if done.returncode == 0:
                high = middle
            else:
                low = middle + 1
        return high

    def restore(self):
        """Everything as it was before the first run."""
        for name in set(os.listdir(self.folder)) - set(self.inputs):
            os.unlink(os.path.join(self.folder, name))
        for name, content in self.inputs.items():
            path = os.path.join(self.folder, name)
            if not os.path.exists(path) or self.content(name) != content:
                with open(path, "wb") as f:
                    f.write(content)

    def judge(self, kind, done, good, hit):
        """What is wrong with how a run ended, or None."""
        code = done.returncode
        lost = self.case.lost(self.folder, self.inputs) if code != 0 else None
        if lost:
            return lost
        if kind == "library" and code != 0:
            return self.older_outputs()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        left = sorted(n for n in set(os.listdir(self.folder)) - set(self.inputs) - set(self.case.outputs)
                      if not self.case.may_leave(n, code))
        if left and kind not in LEAVE:
            return f"left behind: {' '.join(left)}"
        for name in set(self.inputs) - set(self.case.outputs):
            if self.case.may_leave(name, 1):
                continue
            if self.content(name) != self.inputs[name]:
                return f"changed its input {name}"
        if code in (0, self.case.code):
            return self.case.problem(self.folder, done, good)
        if not hit:
            return f"failed though nothing was made to fail: {done.stderr.decode(errors='replace')}"
        if code not in CODES[kind]:
            return f"exit code {code}, expected one of {sorted(CODES[kind])}"
        if not done.stderr.strip():
            return f"exit code {code} without a message"
        return self.older_outputs()

    def older_outputs(self):
        """An output that was there before is as it was, or whole: of the run that failed at its very end."""
        for name in self.case.outputs:
            path = os.path.join(self.folder, name)
            if not os.path.exists(path):
                if name in self.inputs:
                    return f"{name}, which was there before, is gone"
            elif self.inputs.get(name) != self.content(name):
                wrong = self.case.problem(self.folder, None, None)
                if wrong:
                    return f"{name} stayed after the failure: {wrong}"
        return None

    def attempt(self, kind, k, error, sticky, good, good_again):
        settings = {"KIND": kind, "K": k, "ERROR": error, "STICKY": sticky}
        done, lines = self.start(settings, HANG_S)
        if done is None:  # a busy machine, or a hang?
            self.restore()
            done, lines = self.start(settings, 4 * HANG_S)
        hits = [line for line in lines if line[0] == "hit"]
        stack = hits[0][3:] if hits else []
        if done is None:
            fault = Fault(kind, k, error, sticky, None, "hangs", stack, "")
        else:
            fault = Fault(kind, k, error, sticky, done.returncode,
                          self.judge(kind, done, good, bool(hits)), stack,
                          done.stderr.decode(errors="replace").strip())
        self.tried += 1
        if not fault.problem and fault.code and (kind in AGAIN or self.tried % good_again == 0):
            fault = self.again(fault, good)
        self.restore()
        return fault

    def again(self, fault, good):
        """The same command after a failure, in the same folder and with nothing made to fail."""
        done, _ = self.start({}, 4 * HANG_S)
        if done is None or done.returncode != 0:
            return fault._replace(problem="and the next run fails as well: " +
                                  (done.stderr.decode(errors="replace") if done else "it hangs"))
        wrong = self.case.problem(self.folder, done, good)
        return fault._replace(problem=f"and the next run: {wrong}") if wrong else fault


class Campaign:
    """All faults of one case."""

    def __init__(self, case, workers=None):
        self.case = case
        self.workers = workers or min(4, os.cpu_count() or 1)
        self.counts, self.space = {}, (0, 0)

    def points(self, kinds, every, only):
        if "space" in kinds:
            low, high = self.space
            yield from (("space", mib, "ENOMEM", 1) for mib in range(low, high + 1, every))
        for kind in kinds:
            n = self.counts.get(kind, 0)
            for error, sticky in ERRORS.get(kind, ()):
                # Calls that follow each other closely fail alike: a short form takes some of them, the
                # first few and the last always.
                step = 1 if n <= 8 else every * (LIBRARY_EVERY if kind == "library" else 1)
                ks = sorted({*range(1, n + 1, step), n} - {0}) if only is None else [only]
                for k in ks:
                    yield kind, k, error, sticky

    def run(self, every=1, kinds=None, only=None, good_again=None, tell=None):
        """Every `every`-th fault of each kind (or call number `only`), as Faults."""
        good_again = good_again or self.case.good_again
        local = threading.local()
        pool, everybody = [], []
        with tempfile.TemporaryDirectory(prefix="saf-inject-") as original:
            self.case.prepare(original)
            first = Worker(self.case, original)
            everybody.append(first)
            try:
                for _ in range(20):  # a job may be over before it is stopped
                    good, lines = first.start({"KIND": "none"}, 60)
                    if good is None or good.returncode == self.case.code:
                        break
                    first.restore()
                if good is None or good.returncode != self.case.code:
                    raise RuntimeError(f"{self.case.name} fails by itself: " +
                                       (good.stderr.decode(errors="replace") if good else "hangs"))
                wrong = self.case.problem(first.folder, good, good)
                if wrong:
                    raise RuntimeError(f"{self.case.name} by itself: {wrong}")
                self.counts = {line[1]: int(line[2]) for line in lines if line[0] == "count"}
                first.restore()
                kinds = [k for k in kinds or KINDS if k in self.case.kinds]
                if "space" in kinds:
                    # What is too little for the libraries to start in is no affair of saf's.
                    self.space = (first.least_mib(["--version"]), first.least_mib(self.case.words))
                    self.counts["space"] = self.space[1] - self.space[0]

                def attempt(point):
                    if not hasattr(local, "worker"):
                        local.worker = Worker(self.case, original)
                        everybody.append(local.worker)
                    fault = local.worker.attempt(*point, good, good_again)
                    if tell:
                        tell(fault)
                    return fault

                with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:
                    return list(pool.map(attempt, self.points(kinds, every, only)))
            finally:
                for worker in everybody:
                    worker.close()


def where(fault, depth=6):
    """The innermost functions of saf and its libraries on the stack of a fault, by addr2line."""
    names = []
    for frame in fault.stack[:24]:
        module, offset = frame.rsplit("+", 1)
        if module == os.path.basename(SAF):
            done = subprocess.run(["addr2line", "-sfe", SAF, hex(int(offset, 16) - 1)], text=True,
                                  stdout=subprocess.PIPE, check=False)
            names.append(" ".join(done.stdout.split()))
        elif not names or not names[-1].startswith(module):
            names.append(module)
    return " < ".join(names[:depth])
