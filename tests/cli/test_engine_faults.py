"""saf run when something fails: values that are not finite, ranks that fail alone, a full
disk. Nothing hangs, what can go on goes on, and what is said does not depend on the layout."""
import json
import os
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, STORIES, Tap, job_file, saf, scratch, watched  # noqa: E402

tap = Tap()
LAYERS = 5
BAD, LATE = 7, 30  # tokens that break the model of one_token()


def mpirun(ranks, timeout=60):
    """ranks: the words of each, its command first. Returns exit code, stderr, seconds."""
    command = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    for i, words in enumerate(ranks):
        command += [":"] * (i > 0) + ["-np", "1", *words]
    start = time.time()
    try:
        p = subprocess.run(command, cwd=ROOT, env=ENV, text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return None, f"did not end in {timeout} s", timeout
    return p.returncode, p.stderr, time.time() - start


# ---- values that are not finite ----

def made(folder):
    path = os.path.join(folder, "made.gguf")
    p = saf("model", "make", path, "--arch", "qwen3", "--shape", f"{LAYERS}:64:4:2:16:128", "--type",
            "f32", "--seed", 3, "--context", 512)
    tap.ok(p.returncode == 0, "a model is made", p.stderr)
    return path


def patched(source, name, edits):
    """A copy with tensors changed: {tensor: function of its array}."""
    path = os.path.join(os.path.dirname(source), name)
    shutil.copy(source, path)
    tensors = {t["name"]: t for t in
               json.loads(saf("model", "info", path, "--json", "--tensors").stdout)["tensors"]}
    for tensor, edit in edits.items():
        t = tensors[tensor]
        array = np.memmap(path, "<f4", "r+", t["offset"], tuple(reversed(t["shape"])))
        edit(array)
        array.flush()
    return path


def put(place, value):
    return lambda array: array.__setitem__(place, value)


def run_ids(folder, path, sequences, kind, ranks=0, **settings):
    """What the results say of these token ids; None if the run fails."""
    tokens = os.path.join(folder, "ids.txt")
    with open(tokens, "w", encoding="ascii") as f:
        f.writelines(" ".join(map(str, s)) + "\n" for s in sequences)
    job = job_file(folder, f'job = "{kind}"; model: {{ path = "{path}"; }};')
    p = saf("run", job, f"input.tokens={tokens}", f"output.file={folder}/out.h5", "--quiet",
            "layout.threads=1", *(f"{k.replace('__', '.')}={v}" for k, v in settings.items()), ranks=ranks)
    if not tap.ok(p.returncode == 0, f"{kind} on ranks {ranks} ends in order", p.stderr):
        return None
    with h5py.File(f"{folder}/out.h5") as f:
        rows = f["requests"][...]
        return {"errors": [e.decode() for e in rows["error"]], "failed": f.attrs["failed_requests"],
                "likelihoods": rows["log_likelihood"].tolist(),
                "hashes": (f.attrs["tokens_sha256"], f.attrs.get("logits_sha256"))}


def not_finite(where, position):
    return f"a value that is not finite left {where} at position {position}"


def whole_model(folder, source):
    """A broken weight that every request meets."""
    sequences = [[1, 2, 3, 4, 5, 6, 8, 9, 10], [5, 6], [9]]
    for tensor, place, where in (
            ("blk.2.ffn_down.weight", (3, 5), "layer 2"), ("blk.1.attn_k.weight", 2, "layer 1"),
            ("blk.4.attn_norm.weight", 3, "layer 4"), ("output.weight", 5, "the output head"),
            ("output_norm.weight", 9, "the output head")):
        for value in np.nan, np.inf:
            path = patched(source, "whole.gguf", {tensor: put(place, value)})
            r = run_ids(folder, path, sequences, "score", 3 if value == np.inf else 0, run__chunk=3)
            tap.equal(r and (r["errors"], r["failed"]), ([not_finite(where, 0)] * 3, 3),
                      f"{value} in {tensor}")
    path = patched(source, "whole.gguf", {"output.weight": put(5, np.nan)})
    for ranks in 0, 2:
        r = run_ids(folder, path, sequences, "generate", ranks, generate__max_tokens=3)
        tap.equal(r and r["errors"], [not_finite("the output head", n) for n in (8, 1, 0)],
                  f"the output head at the first token sampled, ranks {ranks}")


def one_token(folder, source):
    """BAD has no finite embedding. LATE overflows in layer 2 only: nothing but its embedding reaches
    a column of the stream that a norm there multiplies by a huge weight. Each fails what it is in,
    at its own position, and nothing else, nor what gets the slot after it."""
    column = 9

    def embedding(array):
        array[:, column] = 0
        array[LATE, column] = 1000
        array[BAD, :] = np.nan

    edits = {"token_embd.weight": embedding, "blk.2.ffn_norm.weight": put(column, 3e38)}
    for layer in range(LAYERS):
        for part in "attn_output", "ffn_down":
            edits[f"blk.{layer}.{part}.weight"] = put(column, 0)
    path = patched(source, "one.gguf", edits)
    good = [[1, 2, 3, 4, 5, 6, 8, 9, 10, 11], [5, 6, 9], [12, 11, 10, 9, 8]]
    bad = [[1, 2, LATE, 4, 5, 6, BAD, 8, 9, 10, 11], [1, BAD, 3, LATE], [1, LATE, BAD], [BAD]]
    said = [not_finite("layer 2", 2), not_finite("layer 0", 1), not_finite("layer 2", 1),
            not_finite("layer 0", 0)]
    order = [bad[0], good[0], bad[1], good[1], bad[2], bad[3], good[2]]
    errors = [said[0], "", said[1], "", said[2], said[3], ""]
    by_themselves = run_ids(folder, path, good, "score")
    first = None
    for ranks, sequences, chunk in ((0, 1, 1), (0, 7, 100), (0, 3, 2), (1, 2, 3), (2, 1, 2), (2, 7, 4),
                                    (3, 2, 1), (3, 7, 100), (4, 3, 3), (4, 1, 100)):
        r = run_ids(folder, path, order, "score", ranks, run__sequences=sequences, run__chunk=chunk,
                    score__logits="true")
        name = f"ranks {ranks}, sequences {sequences}, chunk {chunk}"
        if not r:
            continue
        tap.equal((r["errors"], r["failed"]), (errors, 4), "the same layers and positions, " + name)
        first = first or r["hashes"]
        tap.equal(r["hashes"], first, "the same hashes, " + name)
        tap.equal([r["likelihoods"][i] for i in (1, 3, 6)], by_themselves["likelihoods"],
                  "the others as by themselves, " + name)
    r = run_ids(folder, path, order, "generate", 2, generate__max_tokens=3, generate__logits="true")
    tap.equal(r and r["errors"], errors, "generate says the same")


# ---- ranks that fail alone ----

def alone(folder):
    """One rank's failure ends all, in seconds, with its own exit code and one message."""
    shutil.copy(STORIES, os.path.join(folder, "m.gguf"))
    for place in "empty", "other", "cut":
        os.mkdir(os.path.join(folder, place))
    p = saf("model", "make", f"{folder}/other/m.gguf", "--arch", "llama", "--shape", "5:64:4:2:16:96")
    tap.ok(p.returncode == 0, "another model", p.stderr)
    with open(STORIES, "rb") as whole, open(f"{folder}/cut/m.gguf", "wb") as f:
        f.write(whole.read(900000))
    job = job_file(folder, 'job = "generate"; model: { path = "m.gguf"; };')
    words = [job, "--fresh", "input.prompt=Once", "generate.max_tokens=4", "--quiet", f"output.file={folder}/out.h5"]

    def at(place, *before, rest=None):
        return ["sh", "-c", f'cd "{folder}/{place}" && exec "$0" "$@"', *before, SAF, "run",
                *(words if rest is None else rest)]

    code, said, _ = mpirun([at("."), at("."), at(".")])
    tap.ok(code == 0, "all well", said)
    for name, wrong, expected, text in (
            ("no model", at("empty"), 66, "m.gguf: No such file"),
            ("another model", at("other"), 65, "another file than rank 0's"),
            ("half a model", at("cut"), 65, "go past the end of the file"),
            ("unknown kernels", at(".", "env", "SAF_KERNELS=bogus"), 2, 'unknown kernels "bogus"')):
        for rank in 0, 1, 2:
            if rank == 0 and name == "another model":
                continue
            ranks = [at("."), at("."), at(".")]
            ranks[rank] = wrong
            code, said, seconds = mpirun(ranks)
            if rank > 0 and name == "no model":  # it is sent its slice
                tap.ok(code == 0 and "error: " not in said, f"{name} on rank {rank}", said)
                continue
            tap.ok(code == expected and said.count("error: ") == 1 and text in said and
                   f"error: rank {rank} on " in said and seconds < 20,
                   f"{name} on rank {rank}", f"exit {code} after {seconds} s: {said}")
    code, said, _ = mpirun([at("."), at(".", rest=["--help"]), at(".", rest=[])])
    tap.ok(code == 0, "rank 0's command line counts", f"exit {code}: {said}")
    code, said, _ = mpirun([at(".", rest=["--wrong"]), at(".")])
    tap.ok(code == 2 and said.count("error: ") == 1, "also a wrong one", f"exit {code}: {said}")


def out_of_memory(folder):
    """A cache that one rank has no room for: 5.8 GB, of which next to nothing would be used."""
    path = os.path.join(folder, "long.gguf")
    saf("model", "make", path, "--arch", "qwen3", "--shape", "24:64:4:2:16:96", "--context", 2000000)
    prompts = os.path.join(folder, "p.txt")
    with open(prompts, "w", encoding="ascii") as f:
        f.write("a\nb\n")
    job = job_file(folder, f'job = "generate"; model: {{ path = "{path}"; }};')
    words = [SAF, "run", "--fresh", job, f"input.prompts={prompts}", "generate.max_tokens=1900000", "--quiet",
             "run.sequences=2", "layout.threads=1", f"output.file={folder}/out.h5"]
    limited = ["sh", "-c", 'ulimit -v 2500000; exec "$0" "$@"', *words]
    for rank in 0, 1:
        if watched():
            tap.skip(f"no memory on rank {rank}", "the address sanitizer needs all of the address space")
            continue
        ranks = [words, words]
        ranks[rank] = limited
        code, said, seconds = mpirun(ranks)
        tap.ok(code == 1 and f"error: rank {rank} on " in said and "cannot allocate" in said and
               seconds < 20, f"no memory on rank {rank}", f"exit {code} after {seconds} s: {said}")
    tap.equal(sorted(os.listdir(folder)), ["job.cfg", "long.gguf", "p.txt"], "nothing is left")


# ---- no room ----

def no_room(folder):
    """A file system of 1 MB in a name space of its own, and 1.8 MB of logits."""
    disk = os.path.join(folder, "disk")
    os.mkdir(disk)
    space = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-r", "-m"]
    mount = f'mount -t tmpfs -o size=1m none "{disk}" && '
    if subprocess.run([*space, "sh", "-c", mount + "true"], check=False,
                      stderr=subprocess.DEVNULL).returncode != 0:
        tap.skip("a disk that fills", "no file system can be mounted")
        return
    tokens = os.path.join(folder, "ids.txt")
    with open(tokens, "w", encoding="ascii") as f:
        f.write("\n".join(" ".join(["5"] * 100) for _ in range(9)))
    job = job_file(folder, f'job = "score"; model: {{ path = "{STORIES}"; }};')
    for ranks, replicas in (1, 1), (2, 1), (3, 1), (2, 2), (4, 2), (3, 3):
        script = mount + f'mpirun -np {ranks} --oversubscribe "$0" "$@"; code=$?; ls "{disk}"; exit $code'
        p = subprocess.run([*space, "sh", "-c", script, SAF, "run", job, f"input.tokens={tokens}",
                            "score.logits=true", f"layout.replicas={replicas}", "--quiet",
                            f"output.file={disk}/out.h5"], cwd=ROOT, env=ENV, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)
        tap.ok(p.returncode == 74 and "No space left" in p.stderr and p.stdout == "",
               f"a disk that fills, {ranks} ranks, {replicas} replicas",
               f"exit {p.returncode}: {p.stdout}{p.stderr}")


with scratch() as scratch_folder:
    model = made(scratch_folder)
    whole_model(scratch_folder, model)
    one_token(scratch_folder, model)
for case in alone, out_of_memory, no_room:
    with scratch() as scratch_folder:
        case(scratch_folder)
tap.exit()
