"""Replicas of a model draw from one queue: the results are those of one rank alone, whoever ran what;
who is slow gets fewer; all take part; one that fails ends the job in order."""
import json
import os
import pty
import re
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, PATIENCE, ROOT, SAF, STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
# What depends on who ran a request, and when; and where its logits lie in a generate job.
OF_THE_RUN = ["replica", "queue_s", "time_to_first_token_s", "seconds_per_token", "logits_row0"]
WORDS = "once upon a time there was a little girl who had a big red ball and went to the park".split()


def words_of(settings):
    return [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]


def grid(replicas, stages=1):
    return {"layout__replicas": replicas, "layout__pipeline": stages}


def results(path):
    """What a run says of its requests, who ran those that ran, and the rows as they are."""
    with h5py.File(path) as f:
        rows = f["requests"][...]
        columns = {k: rows[k].tolist() for k in rows.dtype.names if k not in OF_THE_RUN}
        arrays = {k: f[k][...].tolist() for k in
                  ("text/completion", "tokens/prompt", "tokens/completion", "tokens/completion_offsets")}
        for name in f.get("logprobs", {}):
            arrays[name] = np.nan_to_num(f["logprobs"][name][...], nan=-1).tolist()
        attributes = {k: f.attrs.get(k) for k in
                      ("tokens_sha256", "logits_sha256", "completion_tokens", "failed_requests")}
        return {"columns": {k: [repr(v) for v in c] for k, c in columns.items()}, "arrays": arrays,
                "attributes": attributes}, [r for r in rows["replica"].tolist() if r >= 0], rows


def run(folder, kind, ranks=0, path=STORIES, **settings):
    job = job_file(folder, f'job = "{kind}"; model: {{ path = "{path}"; }};', "j.cfg")
    out = os.path.join(folder, "out.h5")
    p = saf("run", job, f"output.file={out}", *words_of({"layout__threads": 1, **settings}), ranks=ranks)
    return p, results(out) if p.returncode == 0 else None


def text_of(i):
    """From one word to more than the context has room for."""
    return " ".join(WORDS[(i * 5 + k) % len(WORDS)] for k in range((1, 3, 9, 40, 90)[i % 5]))


def texts(folder, n):
    path = os.path.join(folder, "t.txt")
    with open(path, "w", encoding="ascii") as f:
        f.writelines(text_of(i) + "\n" for i in range(n))
    return path


def prompts(folder, n):
    """Sampled and greedy."""
    path = os.path.join(folder, "p.jsonl")
    with open(path, "w", encoding="ascii") as f:
        for i in range(n):
            more = ', "temperature": 0.0' if i % 3 == 0 else f', "seed": {i}'
            f.write(f'{{"id": "p{i}", "prompt": "{text_of(i)}", "max_tokens": {3 + i * 7 % 20}{more}}}\n')
    return path


def same_as_alone(folder):
    generate = {"input__prompts": prompts(folder, 26), "generate__temperature": 0.8, "generate__logprobs": 3,
                "generate__logits": "true", "generate__stop": '[" the b", "y."]', "run__context": 100}
    score = {"input__texts": texts(folder, 26), "score__logits": "true", "run__context": 100}
    for kind, settings in (("generate", generate), ("score", score)):
        p, alone = run(folder, kind, **settings)
        if not tap.ok(alone and alone[0]["attributes"]["failed_requests"] > 0, f"{kind} alone", p.stderr):
            continue
        ran_by = set()
        reasons = set(alone[0]["columns"]["finish_reason"])
        tap.ok(len(reasons) >= (3 if kind == "generate" else 2), f"{kind} ends in several ways", reasons)
        for replicas, stages, more in ((2, 1, {}), (3, 1, {"run__sequences": 2, "run__chunk": 7}), (2, 2, {}),
                                       (3, 2, {"run__sequences": 3}), (4, 1, {"run__sequences": 1})):
            name = f"{kind} on {replicas} replicas of {stages} stages {more}"
            p, r = run(folder, kind, replicas * stages, **settings, **grid(replicas, stages), **more)
            if not tap.ok(r is not None, name, p.stderr):
                continue
            for part in alone[0]:
                for key in alone[0][part]:
                    if r[0][part][key] != alone[0][part][key]:
                        tap.equal(r[0][part][key], alone[0][part][key], f"{name}: {part} {key}")
            tap.equal(r[0]["attributes"], alone[0]["attributes"], name + ": hashes and counts")
            ran_by |= set(r[1])
            tap.ok(set(r[1]) <= set(range(replicas)), name + ": who ran them", r[1])
            ran = r[2][r[2]["state"] == b"done"]
            tap.ok((ran["queue_s"] >= 0).all() and (ran["seconds_per_token"] >= 0).all() and
                   (ran["seconds_per_token"] < 60).all(), name + ": times", ran)
        tap.ok({0, 1} <= ran_by, f"{kind}: others than the first ran some", ran_by)


def few(folder):
    """Fewer requests than replicas; a single one is shown as it comes, by the first of them."""
    p, alone = run(folder, "generate", input__prompt="Once upon", generate__max_tokens=12)
    for replicas, stages in ((2, 1), (3, 1), (2, 2)):
        q, r = run(folder, "generate", replicas * stages, input__prompt="Once upon",
                   generate__max_tokens=12, **grid(replicas, stages))
        tap.ok(r and r[1] == [0] and r[0] == alone[0] and q.stdout == p.stdout,
               f"one request, {replicas} replicas of {stages}", f"{q.stderr}{q.stdout}{p.stdout}")
    two = os.path.join(folder, "two.txt")
    with open(two, "w", encoding="ascii") as f:
        f.write("Once upon\nthere was\n")
    _, alone = run(folder, "generate", input__prompts=two, generate__max_tokens=12)
    q, r = run(folder, "generate", 4, input__prompts=two, generate__max_tokens=12, **grid(4))
    tap.ok(r and r[0] == alone[0] and 0 in r[1], "two requests, four replicas", q.stderr)


def speeds(folder):
    """All take part; a replica with the plain arithmetic is several times slower and gets fewer."""
    path = os.path.join(folder, "m.gguf")
    saf("model", "make", path, "--arch", "qwen3", "--shape", "4:512:8:4:64:1536", "--type", "q8_0")
    tokens = os.path.join(folder, "ids.txt")
    with open(tokens, "w", encoding="ascii") as f:
        f.writelines(" ".join(str(3 + (i * 7 + k) % 90) for k in range(40)) + "\n" for i in range(40))
    job = job_file(folder, f'job = "score"; model: {{ path = "{path}"; }};', "j.cfg")
    hashes = set()
    for replicas, slow in (3, None), (2, 0), (2, 1):
        command = ["mpirun", "--oversubscribe", "--bind-to", "none"]
        for rank in range(replicas):
            command += [":"] * (rank > 0) + ["-np", "1", "env", "SAF_KERNELS=" + ("scalar" if rank == slow else "auto"),
                                             SAF, "run", job, f"input.tokens={tokens}", "--fresh", "--quiet",
                                             f"layout.replicas={replicas}", "layout.threads=1",
                                             "run.sequences=2", f"output.file={folder}/out.h5"]
        p = subprocess.run(command, cwd=ROOT, env=ENV, text=True, stderr=subprocess.PIPE,
                           timeout=100 * PATIENCE, check=False)
        name = f"{replicas} replicas, {'none' if slow is None else slow} slow"
        if not tap.ok(p.returncode == 0, name, p.stderr):
            continue
        said, by, _ = results(f"{folder}/out.h5")
        hashes.add(said["attributes"]["tokens_sha256"] + repr(said["columns"]["log_likelihood"]))
        counts = [by.count(r) for r in range(replicas)]
        tap.ok(min(counts) >= 2 and (slow is None or counts[slow] < counts[1 - slow] / 2),
               f"{name}: they run {counts}")
    tap.equal(len(hashes), 1, "the results are the same")


def faults(folder):
    """A token without a finite embedding fails the requests that it is in, wherever they run."""
    path = os.path.join(folder, "bad.gguf")
    saf("model", "make", path, "--arch", "qwen3", "--shape", "3:64:4:2:16:128", "--type", "f32", "--seed", 3)
    info = json.loads(saf("model", "info", path, "--json", "--tensors").stdout)
    t = next(t for t in info["tensors"] if t["name"] == "token_embd.weight")
    array = np.memmap(path, "<f4", "r+", t["offset"], tuple(reversed(t["shape"])))
    array[7, :] = np.nan
    array.flush()
    tokens = os.path.join(folder, "ids.txt")
    with open(tokens, "w", encoding="ascii") as f:
        f.writelines(" ".join(str(7 if i % 3 == 1 and k == i % 9 else 20 + (i + k) % 50) for k in range(9)) + "\n"
                     for i in range(20))
    for kind, more in (("score", {"score__logits": "true"}),
                       ("generate", {"generate__logits": "true", "generate__max_tokens": 4})):
        _, alone = run(folder, kind, path=path, input__tokens=tokens, **more)
        tap.equal(alone and alone[0]["attributes"]["failed_requests"], 7, f"{kind}: requests that fail")
        for replicas, stages in ((2, 1), (3, 2)):
            p, r = run(folder, kind, replicas * stages, path=path, input__tokens=tokens, run__chunk=4,
                       run__sequences=3, **more, **grid(replicas, stages))
            tap.ok(r and r[0] == alone[0], f"{kind} on {replicas} replicas of {stages}", f"{p.stderr}{r}{alone}")


def on_a_terminal(folder):
    """The bar counts the requests and tokens of all replicas."""
    source = prompts(folder, 20)
    job = job_file(folder, f'job = "generate"; model: {{ path = "{STORIES}"; }};', "j.cfg")
    reader, writer = pty.openpty()
    p = subprocess.Popen(["mpirun", "-np", "3", "--oversubscribe", SAF, "run", job, f"input.prompts={source}",
                          "generate.ignore_eos=true", "layout.replicas=3", f"output.file={folder}/out.h5"],
                         cwd=ROOT, env=ENV, stderr=writer, stdout=subprocess.DEVNULL)
    os.close(writer)
    said = b""
    try:
        while part := os.read(reader, 4096):
            said += part
    except OSError:  # a terminal's way to end
        pass
    os.close(reader)
    p.wait(60)
    with h5py.File(f"{folder}/out.h5") as f:
        tokens = f.attrs["completion_tokens"]
    tap.ok(re.search(rb"\[=+\] 20/20 requests, %d tokens" % tokens, said), "the bar", said)


for case in same_as_alone, few, speeds, faults, on_a_terminal:
    with scratch() as scratch_folder:
        case(scratch_folder)
tap.exit()
