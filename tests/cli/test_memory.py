"""Models over ranks: in each replica the weight bytes add up to the file's, and no rank takes more memory
than its slice, its cache and 64 MiB, memory shared by the ranks of a host included. Pipelines of a model
of more than 600 MB, and every kind of grid of a smaller one. Products where there is little address space."""
import json
import os
import subprocess
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, SAF, Tap, job_file, saf, scratch, watched  # noqa: E402

tap = Tap()
JOB = """job = "generate";
model: {{ path = "{path}"; }};
input: {{ prompt = "One morning"; }};
generate: {{ max_tokens = 8; ignore_eos = true; }};
layout: {{ threads = 1; }};
output: {{ file = "{folder}/out.h5"; }};
"""


def run_given(ranks, folder, job):
    """A run in which only rank 0 starts in the folder of the model and so finds it."""
    nowhere = os.path.join(folder, "nowhere")
    os.makedirs(nowhere, exist_ok=True)
    line = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    for place, n in ((folder, 1), (nowhere, ranks - 1)):
        line += ["-np", str(n), "-wdir", place, SAF, "run", job, "--fresh", "--quiet", "model.path=model.gguf", ":"]
    return subprocess.run(line[:-1], env=ENV, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)


def make(folder, shape, vocabulary, *words):
    """Its path and the bytes of its tensors."""
    path = os.path.join(folder, "model.gguf")
    made = saf("model", "make", path, "--arch", "qwen3", "--shape", shape, "--type", "q8_0",
               "--vocab-size", vocabulary, *words, timeout=300)
    if not tap.ok(made.returncode == 0, f"a model of {shape} is made", made.stderr):
        tap.exit()
    return path, json.loads(saf("model", "info", path, "--json").stdout)["tensor_bytes"]


def check_memory(label, table):
    if watched():
        tap.skip(label + ": memory", "the address sanitizer takes memory itself")
        return
    for r in table:
        limit = int(r["weight_bytes"]) + int(r["memory_kv_bytes"]) + (64 << 20)
        tap.ok(int(r["peak_memory_bytes"]) <= limit,
               f"{label}: rank {r['rank']} takes "
               f"{(int(r['peak_memory_bytes']) - limit) / 2**20 + 64:.0f} MiB beyond its "
               "slice and cache", f"peak {r['peak_memory_bytes']}, limit {limit}")


def check(folder, job, file_bytes, ranks, given=False, replicas=1, **grid):
    """Returns the table of ranks."""
    label = f"{ranks} ranks" + "".join(f", {k} {v}" for k, v in grid.items()) + \
        (f", replicas {replicas}" if replicas > 1 else "") + (", rank 0 alone has the file" if given else "")
    words = [f"layout.{k}={v}" for k, v in {**grid, "replicas": replicas}.items()]
    run = run_given(ranks, folder, job) if given else saf("run", job, "--quiet", *words, ranks=ranks, timeout=300)
    if not tap.ok(run.returncode == 0, label + ": runs", run.stderr):
        return None
    out = os.path.join(folder, "out.h5")
    with h5py.File(out) as f:
        table = f["ranks"][...]
    for replica in range(replicas):
        mine = table[table["replica"] == replica]
        tap.equal(int(mine["weight_bytes"].sum()) - int(mine["replicated_bytes"].sum()), file_bytes,
                  f"{label}: weight bytes of replica {replica} add up")
    tap.equal([bool(r["replicated"]) for r in table], [bool(r["replicated_bytes"]) for r in table],
              label + ": what another counts has names")
    said = f"{replicas} replicas: each holds the whole model, {file_bytes / 2**20:.1f} MiB\n"
    tap.equal(said in saf("report", out).stdout, replicas > 1, label + ": the report tells of replicas")
    check_memory(label, table)
    return table


def pipelines(folder):
    path, file_bytes = make(folder, "14:1024:16:8:128:3072", 202048)
    tap.ok(os.path.getsize(path) > 600e6, "it is larger than 600 MB")
    job = job_file(folder, JOB.format(path=path, folder=folder))
    for ranks, given in (1, False), (2, False), (3, True):
        check(folder, job, file_bytes, ranks, given, pipeline=ranks)


def grids(folder):
    """Of a model whose embedding is its head as well."""
    path, file_bytes = make(folder, "14:512:8:4:128:1536", 202048, "--tied")
    job = job_file(folder, JOB.format(path=path, folder=folder))
    table = check(folder, job, file_bytes, 3, pipeline=3)
    if table is not None:
        tap.ok(table[-1]["replicated"].startswith(b"token_embd.weight"), "the last stage names the embedding")
    check(folder, job, file_bytes, 2, tensor=2)
    check(folder, job, file_bytes, 3, tensor=3)
    check(folder, job, file_bytes, 4, pipeline=2, tensor=2)
    check(folder, job, file_bytes, 2, replicas=2)
    check(folder, job, file_bytes, 4, tensor=2, replicas=2)


def address_space(folder):
    """OpenBLAS asks for its buffers for ever where there is no room: it may not come to that."""
    if watched():
        tap.skip("products in little address space", "the address sanitizer takes it itself")
        return
    job = job_file(folder, 'job = "matmul"; matmul: { m = 300; n = 300; k = 300; type = "f32"; seed = 1; };\n'
                   f'layout: {{ threads = 2; }}; output: {{ file = "{folder}/product.h5"; }};')
    codes, refused = [], 0
    for mib in range(100, 4000, 60):
        try:
            p = subprocess.run(["prlimit", f"--as={mib << 20}", SAF, "run", job, "--fresh", "--quiet"], env=ENV, text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=20)
        except subprocess.TimeoutExpired:
            tap.ok(False, "products in little address space", f"hangs in {mib} MiB, after {codes}")
            return
        codes.append(p.returncode)
        refused += p.returncode == 1 and "bytes for OpenBLAS" in p.stderr
        if p.returncode == 0:
            break
    tap.ok(codes[-1] == 0 and refused > 0 and set(codes) <= {0, 1, 66},
           f"products in little address space are refused until they fit: {codes}")


for part in pipelines, grids, address_space:
    with scratch() as scratch_folder:
        part(scratch_folder)
tap.exit()
