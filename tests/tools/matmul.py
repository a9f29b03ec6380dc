"""What the tests of products share: a job in a folder of its own, from files or a seed."""
import glob
import os
import subprocess
import time

import h5py
import numpy as np

from resume import ranks_of
from saftest import ENV, ROOT, SAF, job_file

JOB = """
job = "matmul";
matmul: {{ {matmul} }};
layout: {{ threads = 1; }};
run: {{ memory_mib = {memory}; watchdog_seconds = 60; }};
checkpoint: {{ every_seconds = {every}; }};
output: {{ file = "{out}"; {output} }};
"""


class Product:
    def __init__(self, folder, matmul, memory=0, every=0, output="", name="p"):
        self.folder = folder
        self.out = os.path.join(folder, name + ".h5")
        self.path = job_file(folder, JOB.format(matmul=matmul, memory=memory, every=f"{every:.6f}", out=self.out,
                                                output=output), name + ".cfg")

    def command(self, ranks=0, words=()):
        words = [SAF, "run", self.path, *words]
        if ranks:
            words = ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", *words]
        return words

    def start(self, ranks=0, words=(), env=None, log=None):
        return subprocess.Popen(self.command(ranks, words), cwd=ROOT, env=dict(ENV, **(env or {})), text=True,
                                errors="replace", start_new_session=True, stdout=subprocess.DEVNULL,
                                stderr=log or subprocess.PIPE)

    def run(self, ranks=0, words=(), env=None, timeout=300):
        p = self.start(ranks, words, env)
        said = p.communicate(timeout=timeout)[1]
        return p.returncode, said

    def peak(self, ranks, words=(), every_s=0.004):
        """(exit status, what it said, the largest resident size of each process in bytes), of memory that processes
        share an even part each: looked at every few milliseconds."""
        p = self.start(ranks, words)
        most, found = {}, [] if ranks else [p.pid]
        while p.poll() is None:
            if len(found) < ranks:
                found = ranks_of(p)
            for pid in found:
                try:
                    with open(f"/proc/{pid}/status", encoding="ascii") as f:
                        kib = dict(line.split()[:2] for line in f if line.startswith("Rss"))
                except OSError:
                    continue
                if len(kib) >= 3:
                    size = int(kib["RssAnon:"]) + int(kib["RssFile:"]) + int(kib["RssShmem:"]) // max(1, ranks)
                    most[pid] = max(most.get(pid, 0), size << 10)
            time.sleep(every_s)
        return p.returncode, p.communicate()[1], list(most.values())

    def results(self):
        """(C, attributes, rows of /product/ranks)"""
        with h5py.File(self.out, "r") as f:
            return f["C"][:] if "C" in f else None, dict(f.attrs), f["product/ranks"][:]

    def sha(self):
        with h5py.File(self.out, "r") as f:
            return f.attrs["product_sha256"]

    def checkpoints(self):
        names = [n for n in glob.glob(self.out + ".ckpt-*") if n.rsplit("-", 1)[1].isdigit()]
        return sorted(names, key=lambda n: int(n.rsplit("-", 1)[1]))

    def clear(self):
        for name in glob.glob(self.out + "*"):
            os.unlink(name)


def write(path, name, values, **how):
    with h5py.File(path, "a") as f:
        f.create_dataset(name, data=values, **how)
    return f"{path}:/{name}"


def bound(a, b, k):
    """The largest error of any way to add up k products, for each element."""
    u = np.finfo(a.dtype).eps / 2
    g = (k + 3) * u / (1 - (k + 3) * u)
    return g * (np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))) + np.finfo(a.dtype).tiny
