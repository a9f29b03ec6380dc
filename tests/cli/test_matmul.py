"""saf run of products: what NumPy says of the same files, the same bits whatever the ranks, wrong input and
wrong products refused, the results as doc/results.md has them, and the example of doc/matrix.md."""
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import time

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from matmul import Product, bound, write  # noqa: E402
from results_maker import TYPES, page_tables  # noqa: E402
from saftest import ENV, ROOT, SAF, Tap, saf, scratch, watched  # noqa: E402

tap = Tap()
LONG = bool(os.environ.get("SAF_TEST_MATMUL_LONG"))


def made(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def matrices(folder):
    """Against NumPy in float64: types, transposes, chunks, byte orders, alpha and beta, on 1 to 4 ranks."""
    rng = np.random.default_rng(3)
    cases = [("<f4", (70, 50, 90), 0, 0, 1.0, 0.0, {}), (">f8", (33, 129, 65), 1, 0, -0.5, 0.0, {"chunks": (7, 5)}),
             ("<f8", (129, 1, 300), 0, 1, 1.0, 2.0, {"chunks": True, "compression": "gzip"}),
             ("<f4", (1, 257, 2000), 1, 1, 2.5, -1.0, {"chunks": (1, 64), "fletcher32": True}),
             ("<f4", (700, 900, 300), 0, 1, 1.0, 0.5, {"chunks": (100, 1)}),
             ("<f8", (5, 0, 4), 0, 0, 1.0, 0.0, {}), ("<f8", (5, 4, 0), 0, 0, 1.0, 3.0, {})]
    for n_case, (kind, (m, n, k), ta, tb, alpha, beta, how) in enumerate(cases):
        base = np.dtype(kind).newbyteorder("=")
        a, b, c = made(rng, (m, k), base), made(rng, (k, n), base), made(rng, (m, n), base)
        path = os.path.join(folder, f"in{n_case}.h5")
        small = how if min(m, n, k) > 64 or "chunks" not in how or how["chunks"] is True else {}
        names = [write(path, "A", (a.T if ta else a).astype(kind), **small),
                 write(path, "g/B", (b.T if tb else b).astype(kind), **small), write(path, "C", c.astype(kind))]
        text = (f'a = "{names[0]}"; b = "{names[1]}"; c = "{names[2]}"; alpha = {alpha}; beta = {beta}; '
                f'transpose_a = {str(bool(ta)).lower()}; transpose_b = {str(bool(tb)).lower()};')
        exact = alpha * (a.astype(np.float64) @ b.astype(np.float64)) + beta * c.astype(np.float64)
        most = abs(alpha) * bound(a, b, k) + abs(beta) * np.abs(c) * 4 * np.finfo(base).eps + np.finfo(base).tiny
        shas = set()
        for ranks in (0, 2, 3, 4) if n_case in (0, 4) else (0, 3):
            job = Product(folder, text, name=f"c{n_case}")
            code, said = job.run(ranks, ["--fresh"])
            name = f"case {n_case} on {ranks or 1} ranks"
            if not tap.equal(code, 0, name):
                print("#", said)
                continue
            got, at, _ = job.results()
            tap.ok(got.dtype == base and got.shape == (m, n) and (np.abs(got - exact) <= most).all(),
                   name + ": NumPy's product", f"{got.shape} {np.abs(got - exact).max() if got.size else ''}")
            tap.ok(at["product_check_ratio"] <= 1 and at["product_check_rows"] == m, name + ": checked")
            shas.add(at["product_sha256"])
        tap.equal(len(shas), 1, f"case {n_case}: the same bits")


def seeds(folder):
    """Made from a seed: the formula, transposes, ranks, memory and threads; what a file of them gives."""
    m, n, k = 300, 520, 410
    job = Product(folder, f'm = {m}; n = {n}; k = {k}; type = "f64"; seed = 5;', name="seed")
    shas = {}
    for ranks in (0, 2, 3, 4, 7):
        code, said = job.run(ranks, ["--fresh"])
        tap.equal(code, 0, f"from a seed on {ranks or 1} ranks") or print("#", said)
        shas[ranks] = job.sha()
    code, said = job.run(2, ["--fresh", "run.memory_mib=116", "layout.threads=2"])
    tap.equal(code, 0, "in little memory, with two threads") or print("#", said)
    shas["memory"] = job.sha()
    code, said = job.run(3, ["--fresh", "layout.share=[1.0,3.0,2.0]"])
    tap.equal(code, 0, "with shares") or print("#", said)
    shas["share"] = job.sha()
    tap.equal(len(set(shas.values())), 1, "the same bits on any grid, memory, threads and shares")
    c, at, _ = job.results()
    tap.ok(3 < np.abs(c).mean() < 3 * np.sqrt(k), "of numbers from -1 to 1", np.abs(c).mean())
    plain = [Product(folder, f'm = {k}; n = {n}; k = {k}; type = "f64"; seed = 5; alpha = 0.0; beta = 1.0; {t}', name="plain")
             for t in ("", "transpose_a = true;")]
    for p in plain:
        code, said = p.run(0, ["--fresh"])
        tap.equal(code, 0, "beta C alone") or print("#", said)
    other = Product(folder, f'm = {m}; n = {n}; k = {k}; type = "f64"; seed = 6;', name="other")
    other.run(0, ["--fresh"])
    tap.ok(other.sha() != at["product_sha256"], "another seed is another product")


def output(folder):
    """Where the product goes, and what is told of it."""
    text = 'm = 130; n = 70; k = 90; seed = 2;'
    whole = Product(folder, text, name="whole")
    whole.run(2, ["--fresh"])
    c, at, shares = whole.results()
    own = Product(folder, text, name="own", output=f'product = "{folder}/c.h5:/out/C";')
    code, said = own.run(2, ["--fresh"])
    tap.equal(code, 0, "a product in a file of its own") or print("#", said)
    with h5py.File(f"{folder}/c.h5", "r") as f:
        d = f["out/C"]
        tap.ok((d[:] == c).all() and d.fletcher32, "the same there, with checksums")
    tap.ok(own.results()[0] is None and not os.path.exists(f"{folder}/c.h5.part"), "and only there")
    none = Product(folder, text, name="none", output="store = false;")
    code, said = none.run(3, ["--fresh"])
    tap.ok(code == 0 and none.results()[0] is None and none.sha() == at["product_sha256"], "or nowhere", said)
    code, said = whole.run(3)
    tap.ok(code == 0 and "nothing to compute" in said, "a finished product is not computed again", said)
    code, said = whole.run(0, ["matmul.alpha=2.0"])
    tap.ok(code == 65 and "matmul.alpha" in said, "another one is refused", said)
    code, said = whole.run(0, ["matmul.m=131"])
    tap.ok(code == 65 and "shape was" in said, "so is another shape", said)
    tiles = hashlib.sha256()
    for i in range(0, c.shape[0], at["product_tile_m"]):
        for j in range(0, c.shape[1], at["product_tile_n"]):
            tile = c[i:i + at["product_tile_m"], j:j + at["product_tile_n"]]
            tiles.update(hashlib.sha256(np.ascontiguousarray(tile)).digest())
    tap.equal(at["product_sha256"], tiles.hexdigest(), "product_sha256")
    page = page_tables()
    kinds = {"text": str, "int64": np.int64, "float64": np.float64}
    wrong = [n for n, kind, _ in page["Attributes of a product"] if not isinstance(at.get(n), kinds[kind])]
    tap.equal(wrong, [], "attributes are the page's")
    saw = [(n, shares.dtype[n].str) for n in shares.dtype.names]
    tap.equal(saw, [(n, TYPES[t]) for n, t, *_ in page["/product/ranks"]], "columns are the page's")
    p = saf("report", whole.out)
    tap.ok(p.returncode == 0 and "GFLOP/s" in p.stdout and at["product_sha256"] in p.stdout, "saf report", p.stdout)
    p = saf("report", whole.out, "--json")
    o = json.loads(p.stdout)["product"] if p.returncode == 0 else {}
    tap.ok(o.get("sha256") == at["product_sha256"] and len(o.get("ranks", [])) == 2, "saf report --json", p.stderr)
    p = saf("status", whole.out)
    tap.ok(p.returncode == 0 and "130 x 90 x 70" in p.stdout, "saf status", p.stdout)
    p = saf("run", whole.path, "--dry-run", ranks=4)
    tap.ok(p.returncode == 0 and "grid" in p.stdout and "received MiB" in p.stdout, "saf run --dry-run", p.stderr)
    tap.ok((np.abs(shares["bytes_received"] - shares["bytes_modelled"]) <=
            0.02 * shares["bytes_modelled"] + 64).all(), "bytes as modelled", shares)


def transposes(folder):
    """C alone, transposed: NumPy's, value by value, in chunks and in rows, and in rounds."""
    rng = np.random.default_rng(6)
    for kind, shape, how in (("<f8", (1300, 2100), {}), (">f4", (777, 1), {}), ("<f4", (2050, 611), {"chunks": (64, 611)})):
        values = made(rng, shape, np.dtype(kind).newbyteorder("=")).astype(kind)
        path = os.path.join(folder, f"t{len(how)}{kind[1:]}.h5")
        text = f'c = "{write(path, "M", values, **how)}"; transpose_c = true; beta = 1.0;'
        shas = set()
        for ranks, words in ((0, []), (3, []), (2, ["run.memory_mib=200"])):
            job = Product(folder, text, name="turned")
            code, said = job.run(ranks, ["--fresh", *words])
            if not tap.equal(code, 0, f"{shape} is transposed on {ranks or 1} ranks"):
                print("#", said)
                continue
            got, at, _ = job.results()
            tap.ok(got.dtype.newbyteorder("=") == values.dtype.newbyteorder("=") and (got == values.T).all(),
                   "to NumPy's values")
            tap.ok(at["product_check_rows"] == shape[1] and at["product_transpose_c"] == 1 and at["product_k"] == 0,
                   "and checked")
            shas.add(at["product_sha256"])
        tap.equal(len(shas), 1, "the same bits")
    for text, words in ((f'c = "{path}:/M"; transpose_c = true;', "matmul.beta"),
                        (f'c = "{path}:/M"; m = 5; beta = 1.0;', "matmul.n: missing")):
        job = Product(folder, text, name="none")
        code, said = job.run()
        tap.ok(code == 2 and words in said, f"refused: {words}", said)


def chains(folder):
    """Products of many: NumPy's; in the order that a search through all of them finds; the same bits on any ranks."""
    rng = np.random.default_rng(8)

    def best(lengths, names):
        """(operations, words) of the best of all orders; of equal ones that with the first split."""
        if len(names) == 1:
            return 0, names[0]
        found = None
        for s in range(1, len(names)):
            left, right = best(lengths[:s + 1], names[:s]), best(lengths[s:], names[s:])
            cost = left[0] + right[0] + 2 * lengths[0] * lengths[s] * lengths[-1]
            if found is None or cost < found[0]:
                found = cost, f"({left[1]} {right[1]})"
        return found

    for n_case, (dtype, lengths) in enumerate([("f8", (30, 350, 15, 50, 10, 200, 250)), ("f4", (7, 7, 7, 7)),
                                               ("f8", (1, 600, 300, 1))]):
        path = os.path.join(folder, f"chain{n_case}.h5")
        parts = [made(rng, pair, dtype) for pair in zip(lengths, lengths[1:])]
        names = [write(path, f"M{i}", m) for i, m in enumerate(parts)]
        listed = ", ".join(f'"{n}"' for n in names)
        exact = -2.0 * np.linalg.multi_dot([p.astype("f8") for p in parts])
        shas = set()
        for ranks in (0, 3):
            job = Product(folder, f"chain = [{listed}]; alpha = -2.0;", name=f"chained{n_case}")
            code, said = job.run(ranks, ["--fresh"])
            if not tap.equal(code, 0, f"a chain of {len(parts)} on {ranks or 1} ranks"):
                print("#", said)
                continue
            got, at, _ = job.results()
            tap.ok(np.abs(got - exact).max() <= 64 * np.finfo(dtype).eps * len(parts) * np.abs(exact).max(),
                   "as NumPy has it", np.abs(got - exact).max())
            tap.equal(at["product_a"], best(lengths, names)[1], "in the order of the fewest operations")
            tap.equal([n for n in os.listdir(folder) if ".chain-" in n], [], "and nothing is left between")
            with h5py.File(job.out) as f:
                told = f.attrs["job_text"]
            tap.ok("chain = " in told and all(n in told for n in names) and ".chain-" not in told,
                   "the results have the job as it was given", told)
            shas.add(at["product_sha256"])
            code, said = job.run(ranks)
            tap.ok(code == 0 and "nothing to compute" in said, "a finished one is not computed again", said)
        tap.equal(len(shas), 1, "the same bits")
    # One that ended between two products goes on with the next.
    job = Product(folder, f"chain = [{listed}];", name="between")
    code, said = job.run(0, ["--fresh"])
    sha = job.sha()
    job.clear()
    step = Product(folder, f'a = "{names[0]}"; b = "{names[1]}";', name="between.h5.chain-1")
    step.run()
    code, said = job.run(2)
    tap.ok(code == 0 and "nothing to compute" in said and job.sha() == sha, "goes on between two products", said)
    # What a run that was killed at its end left goes when the results are seen to be there.
    job.run(0)
    step.run()
    with open(step.out + ".ckpt-1", "wb") as f:
        f.write(b"cut short")
    code, said = job.run(2)
    tap.ok(code == 0 and "nothing to compute" in said and glob.glob(job.out + ".chain-1.h5*") == [],
           "steps that were left are removed", f"{said} {glob.glob(job.out + '*')}")
    # A dry run has no results of steps, reads no values, and touches nothing.
    before = sorted(os.listdir(folder))
    p = saf("run", job.path, "--dry-run", ranks=2)
    tap.ok(p.returncode == 0 and "product 1 of 2" in p.stdout and "product 2 of 2" in p.stdout and
           p.stdout.count("grid ") == 2 and sorted(os.listdir(folder)) == before, "a dry run prints each", p.stdout)
    turned = write(path, "turned", made(rng, (1, 2), dtype))
    for ranks in (0, 2):
        code, said = Product(folder, f'chain = [{listed}]; c = "{turned}"; beta = 1.0;', name="none").run(ranks, ["--dry-run"])
        tap.ok(code == 65 and "expected 1 x 1" in said, "and looks at C", f"{code} {said}")
    # Begun with --fresh over results of another job, and ended after its first product.
    job = Product(folder, f"chain = [{listed}]; alpha = 3.0;", name="between")
    code, said = job.run()
    tap.ok(code == 65 and "matmul.alpha" in said, "results of another job stay", said)
    time.sleep(1.1)  # times in files are of whole seconds
    step.run()
    with open(step.out, "rb") as f:
        left = f.read()
    code, said = job.run(2)
    tap.ok(code == 0 and job.sha() != sha, "but not where this one was begun to replace them", said)
    with open(step.out, "wb") as f:
        f.write(left)
    code, said = job.run(2, ["matmul.alpha=4.0"])
    tap.ok(code == 65 and "matmul.alpha" in said, "and what an earlier run left says nothing of that", f"{code} {said}")
    os.unlink(step.out)
    for text, code_wanted, words in ((f'chain = ["{names[0]}"];', 2, "two matrices at least"),
                                     (f'chain = ["{names[0]}", "{names[2]}"];', 65, "do not fit"),
                                     (f'chain = [{listed}]; a = "{names[0]}"; b = "{names[1]}";', 2, "matmul.chain"),
                                     (f'chain = [{listed}]; m = 4;', 2, "matmul.m"),
                                     (f'chain = ["{names[0]}", "x"];', 2, "FILE.h5:/DATASET")):
        code, said = Product(folder, text, name="none").run()
        tap.ok(code == code_wanted and words in said, f"refused: {words}", f"{code} {said}")


def memory(folder):
    """No process takes more than run.memory_mib, program and libraries included; and what may be taken is."""
    if watched():
        return tap.skip("the memory cap", "the sanitizer takes memory of its own")
    for ranks, cap in ((0, 150), (3, 130)) if not LONG else ((0, 140), (0, 170), (0, 300), (1, 200), (2, 150),
                                                             (2, 220), (3, 130), (3, 190), (4, 130), (4, 160)):
        for kind, (m, n, k), store in (("f32", (2600, 1500, 2300), "true"), ("f64", (700, 500, 30000), "false")):
            if not LONG and (store == "true") != (ranks == 0):
                continue
            job = Product(folder, f'm = {m}; n = {n}; k = {k}; type = "{kind}"; beta = 0.5;', memory=cap, name="cap",
                          output=f"store = {store};")
            name = f"{m} x {n} x {k} on {ranks or 1} ranks in {cap} MiB"
            code, said, peaks = job.peak(ranks, ["--fresh"])
            if not tap.equal(code, 0, name):
                print("#", said)
                continue
            _, at, shares = job.results()
            modelled = shares["memory_modelled"].max()
            tap.ok(max(peaks) <= cap << 20 and modelled <= cap << 20 and at["product_memory_cap_bytes"] == cap << 20,
                   name + ": never more", f"{[p >> 20 for p in peaks]} MiB, {modelled >> 20} modelled")
            with h5py.File(job.out) as f:
                largest = f["ranks"]["peak_memory_bytes"].max()
            tap.ok(ranks > 1 or largest <= cap << 20, name + ": as it says itself", largest)
            tap.ok(max(peaks) >= modelled * 0.4, name + ": and not much less than modelled",
                   f"{max(peaks) >> 20} MiB, {modelled >> 20} modelled")


def cores(folder):
    """Ranks whose OpenBLAS runs kernels for unlike processors are refused; told to run the same, they do."""
    job = Product(folder, "m = 300; n = 200; k = 100;", name="cores")
    found = []
    for env in ({"OPENBLAS_CORETYPE": "Haswell"}, {}):
        code, said = job.run(0, ["--fresh"], env=env)
        tap.equal(code, 0, f"one rank, {env}") or print("#", said)
        with h5py.File(job.out) as f:
            found.append(f.attrs["openblas_core"])
    other, own = found
    if own == other:
        return tap.skip("unlike cores", f"OpenBLAS runs its kernels for {own} whatever it is asked for")
    job.clear()

    def two(first, second):
        words = ["mpirun", "--oversubscribe", "--bind-to", "none"]
        for i, core in enumerate((first, second)):
            words += [":"] * i + ["-np", "1", "env", f"OPENBLAS_CORETYPE={core}", SAF, "run", job.path]
        return subprocess.run(words, cwd=ROOT, env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=120, check=False)

    p = two(own, other)
    tap.ok(p.returncode == 2 and f"{own} on " in p.stderr and f"{other} on " in p.stderr and
           "OPENBLAS_CORETYPE" in p.stderr and not os.path.exists(job.out), "unlike cores are refused", p.stderr)
    p = two(other, other)
    tap.equal(p.returncode, 0, "told to run the same kernels they multiply") or print("#", p.stderr)
    with h5py.File(job.out) as f:
        tap.equal(f.attrs["openblas_core"], other, "which the results name")


def refused(folder):
    """What is wrong is said before anything starts."""
    rng = np.random.default_rng(4)
    path = os.path.join(folder, "r.h5")
    a = write(path, "A", made(rng, (6, 7), "f4"))
    b = write(path, "B", made(rng, (8, 5), "f4"))
    d = write(path, "D", made(rng, (7, 5), "f8"))
    w = write(path, "W", np.zeros((7, 5), "i4"))
    g = write(path, "G", made(rng, (7, 5), "f4"))
    c = write(path, "C", made(rng, (5, 6), "f4"))
    with h5py.File(path, "a") as f:
        f["soft"] = h5py.SoftLink("/A")
        f["out"] = h5py.ExternalLink("other.h5", "/A")
    cases = [(f'a = "{a}"; b = "{b}";', 65, "7 columns do not fit 8 rows"),
             (f'a = "{a}"; b = "{d}";', 65, "of one type"), (f'a = "{a}"; b = "{w}";', 65, "float32 or float64"),
             (f'a = "{a}"; b = "{g}"; c = "{c}"; beta = 1.0;', 65, "expected 6 x 5"),
             (f'a = "{path}:/soft"; b = "{g}";', 65, "is a link"), (f'a = "{path}:/out"; b = "{g}";', 65, "is a link"),
             (f'a = "{path}:/none"; b = "{g}";', 65, "no dataset /none"),
             (f'a = "{folder}/none.h5:/A"; b = "{g}";', 66, "none.h5"), (f'a = "{a}";', 2, "matmul.b: missing"),
             (f'a = "{path}"; b = "{g}";', 2, "FILE.h5:/DATASET"), ('m = 5; n = 5;', 2, "matmul.k: missing"),
             (f'a = "{a}"; b = "{g}"; m = 6;', 2, "matmul.m"), ('m = 5; n = 5; k = -2;', 2, "matmul.k")]
    for text, expected, words in cases:
        for ranks in (0, 2) if words in ("of one type", "expected 6 x 5") else (0,):
            job = Product(folder, text, name="bad")
            code, said = job.run(ranks)
            tap.ok(code == expected and words in said and not os.path.exists(job.out),
                   f"refused on {ranks or 1}: {words}", f"{code} {said}")
    job = Product(folder, f'a = "{a}"; b = "{g}";', name="same", output=f'product = "{path}:/new";')
    code, said = job.run()
    tap.ok(code == 2 and "would be replaced" in said, "a product in place of what it is made of", said)
    colon = write(path, "a:b", made(rng, (6, 7), "f4"))  # the dataset's colon is not what ends the file's name
    job = Product(folder, f'a = "{colon}"; b = "{g}";', name="same", output=f'product = "{path}:/new:er";')
    code, said = job.run()
    tap.ok(code == 2 and "would be replaced" in said, "nor where there are colons in datasets' names", said)
    with h5py.File(f"{folder}/results.h5", "w") as f:
        f["x:y"] = made(rng, (6, 7), "f4")
    job = Product(folder, f'a = "{folder}/results.h5:/x:y"; b = "{g}";', name="results")
    code, said = job.run()
    tap.ok(code == 2 and "would be replaced" in said, "nor results", said)
    job = Product(folder, 'm = 200000; n = 200000; k = 200000;', memory=16, name="small")
    code, said = job.run()
    tap.ok(code == 2 and "saf: error" in said, "too little memory for any grid", f"{code} {said}")


def wrong(folder):
    """A bit of one element: the job fails, and no results are named."""
    for kind, ranks in (("f32", 0), ("f64", 3)):
        job = Product(folder, f'm = 300; n = 200; k = 500; type = "{kind}";', name="wrong")
        code, said = job.run(ranks, env={"SAF_TEST_WRONG_PRODUCT": "1"})
        tap.ok(code == 70 and "the product is wrong: row 0" in said and not os.path.exists(job.out),
               f"a wrong product of {kind} on {ranks or 1} ranks fails", f"{code} {said}")
        code, said = job.run(ranks, ["--fresh"])
        tap.equal(code, 0, "and the right one does not") or print("#", said)
        job.clear()
    path = os.path.join(folder, "nan_in.h5")
    a = np.ones((40, 30))
    a[3, 4], a[7, 1] = np.nan, np.inf
    job = Product(folder, f'a = "{write(path, "A", a)}"; b = "{write(path, "B", np.ones((30, 20)))}";', name="nan")
    code, said = job.run(2)
    tap.equal(code, 0, "values that are not finite") or print("#", said)
    c, at, _ = job.results()
    tap.ok(np.isnan(c[3]).all() and np.isinf(c[7]).all() and at["product_check_rows"] == 38, "and rows that are", at)


def elsewhere(folder):
    """Only rank 0 has the files: the others are sent what they need, and write through it."""
    rng = np.random.default_rng(9)
    a, b = made(rng, (900, 700), "f4"), made(rng, (700, 800), "f4")
    path = os.path.join(folder, "far_in.h5")
    names = [write(path, "A", a), write(path, "B", b.T)]
    job = Product(folder, f'a = "{names[0]}"; b = "{names[1]}"; transpose_b = true;', name="far")
    code, said = job.run(2)
    tap.equal(code, 0, "all have the files") or print("#", said)
    sha = job.sha()
    script = os.path.join(folder, "hide.sh")
    with open(script, "w", encoding="ascii") as f:
        f.write('#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 0 ] && cd "$1"\nshift\nexec "$@"\n')
    os.chmod(script, 0o755)
    os.makedirs(f"{folder}/empty", exist_ok=True)
    text = f'a = "far_in.h5:/A"; b = "far_in.h5:/B"; transpose_b = true;'
    far = Product(folder, text, name="far_c")
    for ranks, memory in ((2, 0), (4, 0), (3, 114)):
        p = subprocess.run(["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", script, folder, SAF,
                            "run", far.path, "--fresh", f"run.memory_mib={memory}"], cwd=f"{folder}/empty", env=ENV, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, check=False)
        tap.equal(p.returncode, 0, f"only rank 0 of {ranks} has them") or print("#", p.stderr)
        tap.ok(os.path.exists(far.out) and far.sha() == sha, "the same bits")


def unreadable(folder):
    """What one rank alone cannot read, and only the check wants, ends all of them: nobody waits."""
    away = os.path.join(folder, "away")
    os.makedirs(away, exist_ok=True)
    b = made(np.random.default_rng(12), (4000, 8), "f8")
    for where in (folder, away):
        write(os.path.join(where, "part_in.h5"), "A", np.zeros((0, 4000)))
        write(os.path.join(where, "part_in.h5"), "B", b, chunks=(1, 8), fletcher32=True)
    with h5py.File(os.path.join(away, "part_in.h5")) as f:
        at = f["B"].id.get_chunk_info_by_coord((3001, 0)).byte_offset
    with open(os.path.join(away, "part_in.h5"), "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1]))
    script = os.path.join(folder, "part.sh")
    with open(script, "w", encoding="ascii") as f:
        f.write('#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 0 ] && cd "$1"\nshift\nexec "$@"\n')
    os.chmod(script, 0o755)
    job = Product(folder, 'a = "part_in.h5:/A"; b = "part_in.h5:/B";', name="part")
    try:
        p = subprocess.run(["mpirun", "-np", "2", "--oversubscribe", "--bind-to", "none", script, folder, SAF, "run",
                            job.path], cwd=away, env=ENV, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           timeout=40, check=False)
        tap.ok(p.returncode in (65, 74) and "part_in.h5" in p.stderr and not os.path.exists(job.out),
               "one rank cannot read what the check wants: all end", f"{p.returncode} {p.stderr}")
    except subprocess.TimeoutExpired as e:
        tap.ok(False, "one rank cannot read what the check wants: all end", e)


def example(folder):
    """doc/matrix.md, as it stands."""
    with open(os.path.join(ROOT, "doc", "matrix.md"), encoding="utf-8") as f:
        blocks = re.findall(r"```(\w*)\n(.*?)```", f.read(), re.S)
    env = dict(ENV, PATH=os.path.dirname(SAF) + ":" + ENV["PATH"])
    done = 0
    for kind, text in blocks:
        if kind == "":
            with open(os.path.join(folder, "product.cfg"), "w", encoding="utf-8") as f:
                f.write(text)
            continue
        text = text.replace("-np 2", "-np 2 --oversubscribe --bind-to none")
        command = [sys.executable, "-c", text] if kind == "python" else ["sh", "-c", text]
        p = subprocess.run(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           timeout=300, check=False)
        tap.ok(p.returncode == 0, f"the example, {kind}", p.stdout + p.stderr)
        done += 1
    tap.ok(done == 3 and "the same as NumPy's" in p.stdout, "runs to its end", p.stdout)
    p = saf("run", "jobs/matmul.cfg", f"output.file={folder}/jobs.h5", ranks=2)
    tap.equal(p.returncode, 0, "jobs/matmul.cfg") or print("#", p.stderr)


for test in (matrices, seeds, output, transposes, chains, memory, cores, refused, wrong, elsewhere, unreadable, example):
    with scratch() as folder:
        test(folder)
tap.exit()
