"""Logits of whole models, one a weight type at least: from the NEON kernels under qemu, with the dot
product instructions and without, the same bits as from the kernels of this machine. QEMU is the
command that runs an aarch64 program, BUILD where those are, NATIVE this machine's."""
import glob
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from saftest import ROOT, SHARED, STORIES, Tap

tap = Tap()
QEMU = os.environ["QEMU"].split()
PROGRAM = os.path.join("tests", "print_logits")
HERE, THERE = (os.path.join(os.environ[build], PROGRAM) for build in ("NATIVE", "BUILD"))
tiny = sorted(glob.glob(os.path.join(SHARED, "models", "tiny-*.gguf")))


def logits(command, tokens, models, kernels=""):
    """{model: [(name of the kernels, hash) for each type of cache]}"""
    done = subprocess.run([*command, tokens, *models], cwd=ROOT, text=True, timeout=500,
                          env=dict(os.environ, SAF_KERNELS=kernels, OMP_WAIT_POLICY="passive"),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode != 0:
        tap.ok(False, " ".join(command), done.stderr)
    found = {}
    for line in done.stdout.splitlines():
        name, sha, model = line.split(" ", 2)
        found.setdefault(model, []).append((name, sha))
    return found


def compare(tokens, models):
    want = logits([HERE], tokens, models)
    for cpu, name in (("max", "neon-dotprod"), ("cortex-a53", "neon")):
        got = logits([*QEMU, "-cpu", cpu, THERE], tokens, models, "neon")
        for model in models:
            expected = [(name, sha) for _, sha in want.get(model, [])]
            tap.ok(len(expected) == 3 and got.get(model) == expected,
                   f"logits of {os.path.basename(model)} by {name}", f"{got.get(model)}\nnot {expected}")


with tempfile.TemporaryDirectory() as folder:
    few = os.path.join(folder, "tokens.txt")
    with open(few, "w", encoding="utf-8") as f:
        f.write(" ".join(str(7 * i % 500 + 3) for i in range(60)))
    compare(few, [STORIES])
if tiny:
    compare(os.path.join(SHARED, "models", "tokens48.txt"), tiny)
else:
    tap.skip("logits of a model of every type", "no ../shared/models")
tap.exit()
