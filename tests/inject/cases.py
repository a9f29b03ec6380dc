"""What is made to fail: the commands, their files, and how to tell that one did its work."""
import os
import re
import subprocess

import h5py
import numpy

from inject import INJECTOR, Case, Resumed
from saftest import ENV, SAF

JOB = """job = "{kind}";
model: {{ path = "m.gguf"; }};
input: {{ {input} }};
layout: {{ threads = 1; }};
{settings}
output: {{ file = "out.h5"; }};
"""
PROMPTS = """{"id": "a", "prompt": "One morning"}
{"id": "b", "prompt": "Two", "max_tokens": 2}
"""


def saf_in(folder, *words):
    subprocess.run([SAF, *words], cwd=folder, env=ENV, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        f.write(text)


def model(folder):
    saf_in(folder, "model", "make", "m.gguf", "--arch", "llama", "--shape", "1:32:2:1:16:32",
           "--vocab-size", "300", "--type", "q8_0")


def generate(folder):
    """With the results of an older run, of other requests."""
    model(folder)
    write(folder, "p.jsonl", '{"id": "old", "prompt": "An older run", "max_tokens": 1}\n')
    write(folder, "job.cfg", JOB.format(
        kind="generate", input='prompts = "p.jsonl";',
        settings="generate: { max_tokens = 3; ignore_eos = true; logits = true; logprobs = 2; "
                 'temperature = 0.5; top_k = 40; repeat_penalty = 1.1; stop = ["zz"]; };\n'
                 "run: { trace = true; };"))
    saf_in(folder, "run", "job.cfg", "--quiet")
    write(folder, "p.jsonl", PROMPTS)


def score(folder):
    model(folder)
    write(folder, "t.txt", "1 2 3 4\n5 6 7\n")
    write(folder, "job.cfg", JOB.format(kind="score", input='tokens = "t.txt";',
                                        settings="score: { logits = true; };"))


def results(folder):
    generate(folder)
    saf_in(folder, "run", "job.cfg", "--quiet", "--fresh")


VARIES = ("timeline", "ranks", "calls")
VARYING_COLUMNS = ("queue_s", "time_to_first_token_s", "seconds_per_token", "seconds")


def plain(data):
    """Something that == compares, NaN included."""
    return data.tolist() if data.dtype.hasobject else data.tobytes()


def contents(path):
    """Everything in a results file that is the same in every run."""
    found = {}

    def visit(name, item):
        if not isinstance(item, h5py.Dataset) or name == "plan":  # a run that goes on has none
            return
        data = item[()]
        if name.split("/")[0] in VARIES:
            data = len(data) if name != "timeline" else None
        elif data.dtype.names:
            data = [plain(data[c]) for c in data.dtype.names if c not in VARYING_COLUMNS]
        else:
            data = plain(numpy.asarray(data))
        found[name] = data

    with h5py.File(path, "r") as f:
        f.visititems(visit)
        for key in ("tokens_sha256", "logits_sha256", "weights_sha256", "exit_state"):
            found["@" + key] = f.attrs.get(key)
    return found


class SameResults:
    """out.h5 is whole and holds what that of the first run held."""

    def __init__(self):
        self.expected = None

    def __call__(self, folder, process, good):
        try:
            got = contents(os.path.join(folder, "out.h5"))
        except (OSError, KeyError, RuntimeError) as e:
            return f"no success: out.h5 cannot be read: {e}"
        if self.expected is None:
            self.expected = got
        other = [k for k in self.expected if got.get(k) != self.expected[k]]
        return f"out.h5 differs in {' '.join(other)}" if other else None


def same_output(folder, process, good):
    """The command said what it says when nothing fails."""
    if process is not None and process.stdout != good.stdout:
        return "exit code 0, but other output than that of a good run"
    return None


class Half(SameResults):
    """A job of which half is done: the checkpoint of a first run, which was stopped while it wrote that."""

    def prepare(self, folder):
        model(folder)
        write(folder, "p.jsonl", PROMPTS)
        write(folder, "job.cfg", JOB.format(
            kind="generate", input='prompts = "p.jsonl";',
            settings="generate: { max_tokens = 2000; ignore_eos = true; logits = true; logprobs = 2; "
                     "temperature = 0.5; seed = 3; };\n"
                     "checkpoint: { every_seconds = 0.001; };"))
        saf_in(folder, "run", "job.cfg", "--quiet")
        super().__call__(folder, None, None)
        os.unlink(os.path.join(folder, "out.h5"))
        env = dict(ENV, LD_PRELOAD=INJECTOR, GOMP_SPINCOUNT="1000", SAF_INJECT_STOP="fsync 1")
        for _ in range(20):  # on a busy machine it may be over before
            done = subprocess.run([SAF, "run", "job.cfg", "--fresh"], cwd=folder, env=env, check=False,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if done.returncode == 75:
                return
        raise RuntimeError(f"not stopped on its way: {done.stderr.decode()}")

    def __call__(self, folder, process, good):
        if process is not None and process.returncode == 75:
            return None  # what it left is looked at by Resumed, and by the run after it
        return super().__call__(folder, process, good)


class SameFile:
    def __init__(self, name):
        self.name, self.expected = name, None

    def __call__(self, folder, process, good):
        try:
            with open(os.path.join(folder, self.name), "rb") as f:
                got = f.read()
        except OSError as e:
            return f"no success: {e}"
        if self.expected is None:
            self.expected = got
        return None if got == self.expected else f"{self.name} is not what a good run writes"


class Trained(Case):
    """The model comes before the results; what cannot be written at the end leaves a checkpoint, from which the
    same command goes on."""

    def may_leave(self, name, code):
        return name == "out.gguf" or code != 0 and re.fullmatch(r"out\.h5\.ckpt-[1-9][0-9]*", name) is not None


class SameTraining(SameResults):
    """The results, and the model that was written."""

    def __init__(self):
        super().__init__()
        self.model = SameFile("out.gguf")

    def __call__(self, folder, process, good):
        return super().__call__(folder, process, good) or self.model(folder, process, good)


def train(folder):
    write(folder, "words.txt", "A text of some words, twice: a text of some words.\n" * 8)
    saf_in(folder, "model", "vocab", "v.gguf", "--size", "270", "words.txt")
    write(folder, "job.cfg", """job = "train";
train: { shape = "1:32:2:1:16:32"; vocab = "v.gguf"; steps = 4; batch = 2; micro_batches = 2; context = 8;
         warmup = 1; evaluate_every = 2; };
input: { text = ["words.txt"]; held_out = 0.3; };
layout: { threads = 1; };
checkpoint: { every_seconds = 0.001; };
output: { file = "out.h5"; type = "q8_0"; };
""")


def text(folder):
    model(folder)
    write(folder, "words.txt", "A text of some words, twice: a text of some words.\n")


def nothing(folder):
    write(folder, "readme.txt", "nothing is needed\n")


def all_cases():
    half, stopped = Half(), Half()
    return [
        Resumed("resume", half.prepare, ["run", "job.cfg", "--quiet"], half, "out.h5"),
        Resumed("stop", stopped.prepare, ["run", "job.cfg", "--quiet"], stopped, "out.h5", stop="fsync 1"),
        Case("generate", generate, ["run", "job.cfg", "--quiet", "--fresh"], SameResults(), ["out.h5"]),
        Case("score", score, ["run", "job.cfg", "--fresh"], SameResults(), ["out.h5"]),
        Trained("train", train, ["run", "job.cfg", "--fresh"], SameTraining(), ["out.h5"]),
        Case("vocab", text, ["model", "vocab", "new.gguf", "--size", "280", "words.txt"], SameFile("new.gguf"),
             ["new.gguf"]),
        Case("report", results, ["report", "out.h5"], same_output),
        Case("json", results, ["report", "out.h5", "--json"], same_output),
        Case("info", model, ["model", "info", "m.gguf"], same_output),
        Case("tokens", text, ["model", "tokens", "m.gguf", "--file", "words.txt"], same_output),
        Case("make", nothing, ["model", "make", "new.gguf", "--arch", "llama", "--shape",
                               "1:32:2:1:16:32", "--vocab-size", "300", "--type", "q8_0"],
             SameFile("new.gguf"), ["new.gguf"]),
    ]
