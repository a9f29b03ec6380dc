"""Whole runs: what fails alone, what fails everything, and that a result can be had again."""
import json
import os
import struct
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ROOT, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
STORIES = os.path.join(ROOT, "jobs", "models", "stories260K.gguf")
JOB = """job = "generate";
model: {{ path = "{model}"; }};
input: {{ prompts = "{folder}/prompts.jsonl"; }};
generate: {{ max_tokens = 12; temperature = 0.9; seed = 5; logits = true; logprobs = 1; }};
output: {{ file = "{folder}/out.h5"; }};
"""


def write_prompts(folder, texts):
    with open(os.path.join(folder, "prompts.jsonl"), "w") as f:
        for i, text in enumerate(texts):
            f.write(f'{{"id": "p{i}", "prompt": "{text}"}}\n')


def result(folder):
    with h5py.File(os.path.join(folder, "out.h5")) as f:
        requests = [(r["state"].decode() if isinstance(r["state"], bytes) else r["state"],
                     r["error"].decode() if isinstance(r["error"], bytes) else r["error"])
                    for r in f["requests"][...]]
        return dict(f.attrs), requests


def texts_of(folder):
    with h5py.File(os.path.join(folder, "out.h5")) as f:
        return list(zip((i.decode() for i in f["requests"]["id"]), f["text/completion"].asstr()[:]))


def broken_weights(path, layer):
    """A copy of the bundled model with one infinite weight in the feed-forward of a layer."""
    data = bytearray(open(STORIES, "rb").read())
    tensors = json.loads(saf("model", "info", "--json", "--tensors", STORIES).stdout)["tensors"]
    at = next(t["offset"] for t in tensors if t["name"] == f"blk.{layer}.ffn_down.weight")
    data[at:at + 4] = struct.pack("<f", float("inf"))
    with open(path, "wb") as f:
        f.write(data)


with scratch() as folder:
    job = job_file(folder, JOB.format(model=STORIES, folder=folder))

    # A prompt longer than the context (512) fails alone and is counted.
    write_prompts(folder, ["Once upon a time", "the big red fox " * 200, "Tom had a boat"])
    for ranks in (0, 2):
        run = saf("run", job, "--quiet", ranks=ranks)
        tap.equal(run.returncode, 0, f"a prompt too long does not end the job, {ranks or 1} ranks")
        attrs, requests = result(folder)
        tap.equal([state for state, _ in requests], ["done", "failed", "done"], "it fails alone")
        tap.ok("context" in requests[1][1], "its row says why", requests[1])
        tap.equal(int(attrs["failed_requests"]), 1, "it is counted")
    write_prompts(folder, ["the big red fox " * 200])
    tap.equal(saf("run", job, "--quiet").returncode, 0, "a job of nothing but such a prompt ends")

    # The job stored in the results gives the same results again.
    write_prompts(folder, ["Once upon a time", "Tom had a boat and a dog", "It rained"])
    tap.equal(saf("run", job, "--quiet", "generate.max_tokens=20").returncode, 0, "a job runs")
    first, _ = result(folder)
    again = job_file(folder, first["job_text"], "again.cfg")
    tap.equal(saf("run", again, "--quiet", ranks=3).returncode, 0, "its stored text runs")
    second, _ = result(folder)
    for name in ("tokens_sha256", "logits_sha256", "job_text"):
        tap.equal(second[name], first[name], f"the same {name}")

    # The shards of a job, one after the other, are the job: requests without an id keep their number.
    with open(os.path.join(folder, "five.txt"), "w") as f:
        f.write("One day\nTom had a boat\nIt rained\nThe cat\nMia ran\n")
    words = [job, "--quiet", f"input.prompts={folder}/five.txt"]
    tap.equal(saf("run", *words).returncode, 0, "five prompts in one job")
    whole = texts_of(folder)
    for shards in (2, 6):
        parts = []
        for shard in range(1, shards + 1):
            run = saf("run", *words, f"input.shards={shards}", f"input.shard={shard}", ranks=shard % 2)
            tap.equal(run.returncode, 0, f"shard {shard} of {shards}")
            parts += texts_of(folder)
        tap.equal(parts, whole, f"{shards} shards together: the same ids and texts")

    # More ranks than layers.
    run = saf("run", job, "--quiet", "layout.tensor=1", "layout.replicas=1", ranks=6)
    tap.equal(run.returncode, 2, "more ranks than layers: exit 2")
    tap.ok("start 5 ranks" in run.stderr, "it says how many may be", run.stderr)

    # Truncated at 200 places.
    data = open(STORIES, "rb").read()
    cut = os.path.join(folder, "cut.gguf")
    codes, silent = {}, 0
    for i in range(200):
        with open(cut, "wb") as f:
            f.write(data[:len(data) * i // 200])
        run = saf("model", "info", cut)
        codes[run.returncode] = codes.get(run.returncode, 0) + 1
        silent += cut not in run.stderr
    tap.equal(codes, {65: 200}, "a model cut at 200 places: exit 65 every time")
    tap.equal(silent, 0, "and the message names the file")
    with open(cut, "wb") as f:
        f.write(data[:-100])
    tap.equal(saf("run", job, f"model.path={cut}", ranks=2).returncode, 65, "a run of it, too")

    # A weight that is not finite fails the requests, naming the layer, on every layout alike.
    bad = os.path.join(folder, "bad.gguf")
    broken_weights(bad, 3)
    errors = set()
    for ranks, chunk in ((0, 0), (0, 1), (2, 3), (4, 0)):
        run = saf("run", job, "--quiet", f"model.path={bad}", f"run.chunk={chunk}", ranks=ranks)
        if tap.equal(run.returncode, 0, f"weights not finite: the job ends, {ranks or 1} ranks"):
            _, requests = result(folder)
            errors.add(tuple(requests))
    tap.ok(len(errors) == 1, "the same errors on every layout", errors)
    tap.ok(errors and all(state == "failed" and "layer 3 at position 0" in why
                          for state, why in errors.pop()), "they name layer and position")

    # Nothing is lost where the output cannot be.
    run = saf("run", job, "output.file=/nowhere/out.h5", ranks=2)
    tap.equal(run.returncode, 73, "a folder that is not there: exit 73")
tap.exit()
