"""saf run of a bench job: its results are what doc/results.md says, the bytes and operations are those
that the file's own tensors add up to, and wrong settings stop before anything starts."""
import json
import os
import shutil
import struct
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from results_maker import TYPES, page_tables  # noqa: E402
from saftest import ROOT, STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
BLOCKS = {0: (1, 4), 1: (1, 2), 8: (32, 34), 2: (32, 18), 12: (256, 144), 14: (256, 210), 30: (1, 2)}
JOB = """job = "bench";
model: {{ path = "{path}"; }};
layout: {{ threads = 1; }};
bench: {{ prompt_tokens = 7; decode_tokens = 3; context = 20; sequences = 5; repeats = 2; read_mib = 2; }};
output: {{ file = "{folder}/out.h5"; }};
"""


def gguf(path):
    """(keys, {tensor: (shape, type)}) of a GGUF file: a reader of its own, by the format's page."""
    with open(path, "rb") as f:
        data = f.read()
    at = 0

    def take(code):
        nonlocal at
        value = struct.unpack_from("<" + code, data, at)[0]
        at += struct.calcsize("<" + code)
        return value

    def string():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at].decode("utf-8", "replace")

    def value(kind):
        if kind == 8:
            return string()
        if kind == 9:
            element, n = take("I"), take("Q")
            return [value(element) for _ in range(n)]
        return take("BbHhIif?xxQqd"[kind])

    assert data[:4] == b"GGUF"
    at = 8
    n_tensors, n_keys = take("Q"), take("Q")
    keys = {}
    for _ in range(n_keys):
        name = string()
        keys[name] = value(take("I"))
    tensors = {}
    for _ in range(n_tensors):
        name = string()
        shape = [take("Q") for _ in range(take("I"))]
        tensors[name] = (shape, take("I"))
        take("Q")
    return keys, tensors


def expected(path, sequences, tokens, passes, context, kv_width=2):
    """weight_bytes, kv_bytes, int8_ops, float_ops of a repetition."""
    keys, tensors = gguf(path)
    arch = keys["general.architecture"]
    layers, heads = keys[arch + ".block_count"], keys[arch + ".attention.head_count"]
    kv_heads = keys.get(arch + ".attention.head_count_kv", heads)
    head_width = keys.get(arch + ".attention.key_length",
                          keys[arch + ".embedding_length"] // heads)
    weights = int8 = floats = 0
    for name, (shape, kind) in tensors.items():
        block, size = BLOCKS[kind]
        bytes_ = int(np.prod(shape)) // block * size
        tied_head = name == "token_embd.weight" and "output.weight" not in tensors
        if name == "token_embd.weight":  # a row for each token
            weights += passes * sequences * tokens * (shape[0] // block * size)
        if name == "token_embd.weight" and not tied_head:
            continue
        weights += passes * bytes_
        if len(shape) == 1:
            continue
        rows = 1 if tied_head or name == "output.weight" else tokens  # of a sequence and pass
        ops = 2 * shape[0] * shape[1] * rows * sequences * passes
        if block > 1:
            int8 += ops
        else:
            floats += ops
    kv = 0
    for step in range(passes):
        end = context + (step + 1) * tokens
        kv += sequences * layers * 2 * end * kv_heads * head_width * kv_width
        for position in range(context + step * tokens, end):
            floats += sequences * layers * 4 * heads * head_width * (position + 1)
    return [weights, int(kv), int8, floats]


def columns(row):
    return [int(row[c]) for c in ("weight_bytes", "kv_bytes", "int8_ops", "float_ops")]


def check_counts(f, path, name, kv_width=2):
    shapes = {b"prefill": (1, 7, 1, 0), b"decode": (1, 1, 3, 0), b"decode, long context": (1, 1, 3, 20),
              b"decode, batched": (5, 1, 3, 0)}
    rows = f["bench/phases"][:]
    tap.equal([bytes(r["phase"]) for r in rows], [b"load", *shapes], f"{name}: phases")
    steps = f["bench/steps"][:]
    for row in rows[1:]:
        sequences, tokens, passes, context = shapes[bytes(row["phase"])]
        label = f"{name}: {row['phase'].decode()}"
        tap.equal(columns(row), expected(path, sequences, tokens, passes, context, kv_width),
                  label + ": bytes and operations are those of the file's tensors")
        tap.equal([int(row[c]) for c in ("sequences", "passes", "context", "tokens", "repeats")],
                  [sequences, passes, context, sequences * tokens * passes, 2], label + ": what was done")
        mine = steps[steps["phase"] == row["phase"]]
        tap.equal([sum(int(s[c]) for s in mine) for c in ("weight_bytes", "kv_bytes", "int8_ops", "float_ops")],
                  columns(row), label + ": its steps add up")
        tap.ok(abs(mine["share"].sum() - 1) < 1e-9 and (mine["seconds"] >= -1e-6).all(),
               label + ": shares of its steps", mine)


def check_figures(f, name):
    rows, samples = f["bench/phases"][:], f["bench/samples"][:]
    tap.equal(len(samples), 2 * len(rows), f"{name}: a sample for each repetition")
    for row in rows:
        mine = samples[samples["phase"] == row["phase"]]
        label = f"{name}: {row['phase'].decode()}"
        tap.ok(np.isclose(row["seconds"], np.median(mine["seconds"])) and (mine["seconds"] > 0).all() and
               row["seconds_min"] == mine["seconds"].min() and row["seconds_max"] == mine["seconds"].max(),
               label + ": seconds are those of the samples", row)
        if row["phase"] == b"load":
            tap.ok(np.isclose(row["copies"], np.median(mine["seconds"] / mine["copy_s"])) and
                   np.isnan(row["of_read"]) and np.isnan(row["tokens_per_s"]), label + ": against a copy", row)
            continue
        read = (mine["read_before"] + mine["read_after"]) / 2
        int8 = (mine["int8_before"] + mine["int8_after"]) / 2
        f32 = (mine["f32_before"] + mine["f32_after"]) / 2
        tap.ok((read > 0).all() and (int8 > 0).all() and (f32 > 0).all(), label + ": yardsticks", mine)
        of_read = (row["weight_bytes"] + row["kv_bytes"]) / mine["seconds"] / read
        of_peak = (row["int8_ops"] / int8 + row["float_ops"] / f32) / mine["seconds"]
        tap.ok(np.isclose(row["of_read"], np.median(of_read)) and np.isclose(row["of_read_max"], of_read.max())
               and np.isclose(row["of_peak"], np.median(of_peak)) and np.isclose(row["of_peak_min"], of_peak.min())
               and np.isclose(row["tokens_per_s"], np.median(row["tokens"] / mine["seconds"])),
               label + ": shares of the yardsticks", row)
        tiles = (mine["tiles_before"] + mine["tiles_after"]) / 2
        of_tiles = np.median((row["int8_ops"] / tiles + row["float_ops"] / f32) / mine["seconds"])
        tap.ok(np.isclose(row["of_tiles"], of_tiles, equal_nan=True) and (np.isnan(tiles).all() or (tiles > 0).all()),
               label + ": tile units, where there are some", row)
        chained = samples["read_after"][samples["repetition"] == 1][1:-1]
        tap.ok((chained == samples["read_before"][samples["repetition"] == 1][2:]).all(),
               label + ": a yardstick between any two phases", samples)


def check_page(f):
    page = page_tables()
    for name in ("/bench/phases", "/bench/samples", "/bench/steps"):
        d = f[name]
        kinds = {v: k for k, v in TYPES.items()}
        saw = [(c, kinds.get(d.dtype[c].str, "text"), u) for c, u in zip(d.dtype.names, d.attrs["units"])]
        tap.equal(saw, [(c, k, u) for c, k, u, _ in page[name]], f"columns of {name} are the page's")
        tap.equal([str(t) for t in d.attrs["column_descriptions"]], [t for *_, t in page[name]],
                  f"and so are their descriptions of {name}")
        tap.ok(d.fletcher32 and d.attrs["description"], f"{name} has checksums and a description")


def run(folder, path, name, *words, kv_width=2):
    job = job_file(folder, JOB.format(path=path, folder=folder))
    out = os.path.join(folder, "out.h5")
    p = saf("run", job, *words)
    if not tap.ok(p.returncode == 0 and "% of read" in p.stdout and "error" not in p.stderr,
                  f"{name}: runs", p.stdout + p.stderr):
        return None
    with h5py.File(out) as f:
        tap.equal(f.attrs["job_kind"], "bench", f"{name}: kind of job")
        check_counts(f, path, name, kv_width)
        check_figures(f, name)
    return out


def check_report(out):
    p = saf("report", out)
    tap.ok(p.returncode == 0 and all(w in p.stdout for w in ("bench job, done", "memory read", "load",
           "decode, batched", "times a plain copy", "gate, up", "% of limit")), "saf report", p.stdout)
    p = saf("report", out, "--json")
    with h5py.File(out) as f:
        got = json.loads(p.stdout)["bench"]
        for table in ("phases", "samples", "steps"):
            rows = [{c: r[c].item() for c in r.dtype.names} for r in f["bench/" + table][:]]
            for r in rows:
                for c, v in r.items():
                    r[c] = v.decode() if isinstance(v, bytes) else None if v != v else v
            tap.equal(got[table], rows, f"saf report --json: {table}")


def check_hostile(out, folder):
    """Files that a program changed."""
    def changed(name, change):
        path = os.path.join(folder, "changed.h5")
        shutil.copy(out, path)
        with h5py.File(path, "r+") as f:
            change(f)
        p = saf("report", path)
        json_too = saf("report", path, "--json")
        tap.equal(json_too.returncode, p.returncode, f"{name}: --json ends as the tables do")
        return p

    def rename(f):
        rows = f["bench/phases"][:]
        rows["phase"][:] = b"a|b\x1b[31m<"
        rows["passes"] = 0
        rows["seconds"] = np.nan
        f["bench/phases"][:] = rows
        steps = f["bench/steps"][:]
        steps["phase"][:] = b"a|b\x1b[31m<"
        steps["step"][:] = b"\x1b[2J"
        steps["seconds"] = 0
        f["bench/steps"][:] = steps

    def remove(f):
        del f["bench/samples"]

    p = changed("names that are no words", rename)
    tap.ok(p.returncode == 0 and "\x1b" not in p.stdout and "a/b" in p.stdout, "names that are no words", p.stdout)
    p = changed("a table that is gone", remove)
    tap.ok(p.returncode == 65 and "/bench/samples" in p.stderr, "a table that is gone", p.stderr)


def models(folder):
    # bytes of a key's or value's number in the cache; q8_0: a byte, and an f32 scale for each 32
    kv_types = {"f16": 2, "f32": 4, "q8_0": 36 / 32}
    for dtype, arch, tied, kv in (("q8_0", "qwen3", False, "f16"), ("q4_k", "qwen2", True, "q8_0"),
                                  ("f32", "llama", False, "f16"), ("bf16", "qwen3", True, "f32")):
        path = os.path.join(folder, f"{dtype}.gguf")
        made = saf("model", "make", path, "--arch", arch, "--shape", "2:256:4:2:64:512", "--type", dtype,
                   *(["--tied"] if tied else []))
        tap.equal(made.returncode, 0, f"a model of type {dtype}")
        out = run(folder, path, f"{arch} {dtype}", f"model.kv_type={kv}", kv_width=kv_types[kv])
        if out and dtype == "q8_0":
            with h5py.File(out) as f:
                check_page(f)
            check_report(out)
            check_hostile(out, folder)
        if out and dtype == "f32":
            with h5py.File(out) as f:
                row = f["bench/phases"][1]
                tap.ok(np.isnan(row["sgemm_ops_per_s"]) == np.isnan(row["of_sgemm"]), "OpenBLAS, where it is", row)
    run(folder, STORIES, "the bundled model")


def made_model(folder):
    job = job_file(folder, JOB.format(path="m.gguf", folder=folder).replace(
        'path = "m.gguf"', 'shape = "1:64:2:1:32:96"; arch = "llama"; type = "q4_0"; vocab = 300; tied = true'))
    p = saf("run", job, "--quiet", f"output.file={folder}/made.h5", "bench.context=0", "bench.sequences=0")
    if tap.ok(p.returncode == 0 and p.stdout == p.stderr == "", "a model made for the job", p.stdout + p.stderr):
        with h5py.File(f"{folder}/made.h5") as f:
            tap.ok("1:64:2:1:32:96 Q4_0" in f.attrs["model_name"] and f.attrs["vocab"] == 300
                   and "model_path" not in f.attrs, "is the one that was asked for", dict(f.attrs))
            tap.equal([bytes(r["phase"]) for r in f["bench/phases"][:]], [b"load", b"prefill", b"decode"],
                      "phases that are left out")
    p = saf("run", job, "--quiet", f"output.file={folder}/given.h5", f"model.path={STORIES}")
    tap.equal(p.returncode, 0, "a path on the command line takes the place of the shape")
    p = saf("run", job, "--dry-run", f"output.file={folder}/dry.h5")
    tap.ok(p.returncode == 0 and "prefill" in p.stdout and not os.path.exists(f"{folder}/dry.h5"),
           "--dry-run says what would be measured", p.stdout + p.stderr)
    left = [n for n in os.listdir(folder) if "model-" in n or n.endswith(".part")]
    tap.equal(left, [], "the model that was made is gone")


def wrong(folder):
    good = job_file(folder, JOB.format(path=STORIES, folder=folder), "good.cfg")
    none = job_file(folder, 'job = "bench";\n', "none.cfg")
    both = job_file(folder, 'job = "bench";\nmodel: { path = "a"; shape = "1:1:1:1:2:1"; };\n', "both.cfg")
    nowhere = "output.file=/no/such/folder/x.h5"
    for name, code, say, job, *words in (
            ("neither path nor shape", 2, "model.path: missing", none),
            ("path and shape", 2, "both.cfg:2: model.shape: model.path is given as well", both),
            ("a shape of five numbers", 2, "model.shape: expected layers:width", none, "model.shape=1:2:3:4:5"),
            ("a shape with a tail", 2, "model.shape", none, "model.shape=1:64:2:1:32:96:"),
            ("a negative shape", 2, "model.shape", none, "model.shape=1:64:2:1:32:-96"),
            ("a shape that no model has", 2, "heads", none, "model.shape=1:64:3:2:32:96", f"output.file={folder}/x.h5"),
            ("a shape without layers", 2, "layers", none, "model.shape=0:64:2:1:32:96", f"output.file={folder}/x.h5"),
            ("an unknown type", 2, "model.type", good, "model.type=q9"),
            ("an unknown architecture", 2, "model.arch", good, "model.arch=gpt"),
            ("no repetition", 2, "bench.repeats", good, "bench.repeats=0"),
            ("no prompt", 2, "bench.prompt_tokens", good, "bench.prompt_tokens=0"),
            ("a context below zero", 2, "bench.context", good, "bench.context=-1"),
            ("a context beyond the model's", 2, "positions", good, "bench.context=100000"),
            ("a prompt beyond the model's context", 2, "positions", good, "bench.prompt_tokens=100000"),
            ("an input", 2, "input.prompt", good, "input.prompt=a"),
            ("a key of another kind", 2, "generate.seed", good, "generate.seed=1"),
            ("a missing model", 66, "/no/such.gguf", good, "model.path=/no/such.gguf"),
            ("a missing folder of the results", 73, "/no/such/folder", good, nowhere),
            ("a missing folder of the model that is made", 73, "/no/such/folder", none,
             "model.shape=1:64:2:1:32:96", nowhere)):
        p = saf("run", job, *words)
        tap.ok(p.returncode == code and p.stderr.count("error: ") == 1 and say in p.stderr and p.stdout == "",
               name, f"exit {p.returncode}\n{p.stdout}{p.stderr}")
    for ranks in (1, 3):
        p = saf("run", good, "--quiet", f"output.file={folder}/several.h5", ranks=ranks)
        if tap.equal((p.returncode, p.stderr), (0, ""), f"on {ranks} ranks of mpirun"):
            with h5py.File(f"{folder}/several.h5") as f:
                tap.equal((f.attrs["ranks"], len(f["ranks"]), len(f["bench/phases"])), (ranks, ranks, 5),
                          f"on {ranks} ranks the first one is measured")
    p = saf("run", os.path.join(ROOT, "jobs", "bench-model.cfg"), "--dry-run", "model.vocab=0",
            "model.shape=1:64:2:1:32:96", f"output.file={folder}/example.h5")
    tap.ok(p.returncode == 0 and "4096" in p.stdout, "jobs/bench-model.cfg is right", p.stderr)


with scratch() as where:
    models(where)
    made_model(where)
    wrong(where)
tap.exit()
