"""Results files without saf: doc/results.md says all that is in them, its example runs, the hashes
are what the page says, and h5dump reads them."""
import hashlib
import os
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from results_maker import (TYPES, VARIABLE_TEXT, library_file, page_examples,  # noqa: E402
                           page_tables)
from saftest import Tap, scratch  # noqa: E402

tap = Tap()


def type_name(dtype):
    if h5py.check_string_dtype(dtype):
        return "text"
    return {v: k for k, v in TYPES.items()}.get(dtype.str, dtype.str)


def datasets(f):
    found = {}
    f.visititems(lambda name, o: found.update({"/" + name: o}) if isinstance(o, h5py.Dataset) else None)
    return found


def check_attributes(f, page):
    saw = {n: "text" if isinstance(v, str) else type_name(np.asarray(v).dtype)
           for n, v in f.attrs.items()}
    tap.equal(saw, {name: kind for name, kind, _ in page}, "attributes are the page's, texts are str")


TABLES = ("/requests", "/ranks", "/calls", "/timeline")


def check_table(f, name, page):
    d = f[name]
    saw = [(c, type_name(d.dtype[c]), u) for c, u in zip(d.dtype.names, d.attrs["units"])]
    tap.equal(saw, [(c, k, u) for c, k, u, _ in page], f"columns of {name} are the page's")
    tap.ok(len(d.attrs["column_descriptions"]) == len(d.dtype.names) and d.attrs["description"],
           f"columns of {name} are described")
    tap.ok(d.fletcher32, f"{name} has checksums")
    variable = [c for c in d.dtype.names if d.dtype[c].kind == "O"]
    tap.equal(variable, [c for c in d.dtype.names if c in VARIABLE_TEXT],
              f"{name}: which texts have variable length")


def check_arrays(f, page):
    arrays = {n: d for n, d in datasets(f).items() if n not in TABLES}
    saw = sorted((n, type_name(d.dtype), d.attrs["units"]) for n, d in arrays.items())
    tap.equal(saw, sorted((n, k, u) for n, k, _, u, _ in page), "datasets are the page's")
    for n, d in arrays.items():
        tap.ok(isinstance(d.attrs["units"], str) and len(d.attrs["description"]) > 5,
               f"{n} is described")
        tap.ok(d.fletcher32 or d.dtype.kind == "O", f"{n} has checksums")
        tap.equal(d.maxshape[0], None, f"{n} is extendible")


def prefixed(data):
    return len(data).to_bytes(8, "little") + data


def check_hashes(f):
    ids = [i.encode() if isinstance(i, str) else i for i in f["requests"]["id"]]
    tokens, logits = hashlib.sha256(), hashlib.sha256()
    for i, name in enumerate(ids):
        tokens.update(prefixed(name))
        for part in ("prompt", "completion"):
            a, b = f[f"tokens/{part}_offsets"][i:i + 2]
            tokens.update(prefixed(f["tokens/" + part][a:b].astype("<i4").tobytes()))
        row = f["requests"][i]
        rows = f["logits"][row["logits_row0"]:row["logits_row0"] + row["logits_rows"]]
        logits.update(prefixed(name) + prefixed(rows.astype("<f4").tobytes()))
    tap.equal(f.attrs["tokens_sha256"], tokens.hexdigest(), "tokens_sha256")
    tap.equal(f.attrs["logits_sha256"], logits.hexdigest(), "logits_sha256")


def check_content(f):
    # what tests/results_fixture.h puts there
    q = f["requests"][:]
    tap.equal(q["id"][1].decode(), "request-1-é", "an id")
    tap.equal(q["state"][4], b"failed", "a state")
    tap.equal(f["text/prompt"].asstr()[1], "Grüße, 日本", "a text")
    tap.equal(int(q["seed"][0]), 2**64 - 1, "a seed")
    tap.equal(list(f["tokens/prompt"][:3]), [0, 31, 62], "tokens")
    tap.ok(np.isnan(q["perplexity"]).all(), "no perplexity")
    tap.equal(f["logits"].shape[1], 300, "width of the logits")
    row = int(q["logits_row0"][3])
    tap.equal(f["logits"][row, 7], np.float32(row * 1000 + 7) * np.float32(0.001) - np.float32(7),
              "a logit")
    tap.equal(f["ranks"]["host"][1].decode(), "nöde-01", "a host")
    tap.equal([(int(c["rank"]), c["kind"].decode()) for c in f["calls"][:]],
              [(r, k) for r in (0, 1) for k in ("send", "recv", "barrier")], "calls")
    try:
        import pandas
        frame = pandas.DataFrame(q)
        tap.equal(frame["id"].str.decode("utf-8")[1], "request-1-é", "a pandas DataFrame")
    except ImportError:
        tap.skip("a pandas DataFrame", "pandas is not installed")


with scratch() as folder:
    path = library_file(os.path.join(folder, "r.h5"))
    page = page_tables()
    with h5py.File(path) as f:
        check_attributes(f, page["Attributes of the file"])
        for table in TABLES:
            check_table(f, table, page[table])
        check_arrays(f, page["Arrays"])
        check_hashes(f)
        check_content(f)

    for kind, requests, rows in (("generate", 17, 5), ("generate", 1, 0), ("score", 6, 3)):
        path = library_file(os.path.join(folder, "x.h5"), kind, requests, rows)
        run = subprocess.run([sys.executable, "-c", page_examples()[0], path], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, check=False)
        good = run.returncode == 0 and "request-0-e done" in run.stdout and "bytes [" in run.stdout
        tap.ok(good, f"the page's example runs: {kind}, {requests} requests", run.stdout)

    names = [library_file(os.path.join(folder, f"part-{n}.h5"), "generate", n, 0) for n in (2, 3)]
    run = subprocess.run([sys.executable, "-c", page_examples()[1], *names], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    tap.equal([line.split(" ")[:2] for line in run.stdout.splitlines()],
              [[f"request-{i}-{'é' if i % 2 else 'e'}", "done"] for i in (0, 1, 0, 1, 2)],
              "the page's example of several files runs")

    dump = subprocess.run(["h5dump", "-d", "/requests", "-d", "/text/prompt", path], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    tap.ok(dump.returncode == 0 and "request-0-e" in dump.stdout and "scored" in dump.stdout,
           "h5dump reads it", dump.stdout)
    with h5py.File(path) as f:
        tap.equal(f.libver[0], "earliest", "the earliest file format")
    with open(path, "rb") as raw:
        tap.equal(raw.read(9)[8], 0, "version 0 of the superblock")
tap.exit()
