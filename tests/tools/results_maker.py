"""Results files for tests: through the library (tests/unit/make_results.c, which make builds), and by h5py alone from
what doc/results.md says."""
import os
import re
import subprocess

import h5py
import numpy as np

from saftest import ROOT

BUILD = os.environ.get("BUILD", "build")
MAKER = os.path.join(BUILD, "tests", "make_results")
PAGE = os.path.join(ROOT, "doc", "results.md")


def library_file(path, kind="generate", requests=17, rows=5):
    subprocess.run([MAKER, path, kind, str(requests), str(rows)], cwd=ROOT, check=True)
    return path


def page_tables():
    """{heading: [cells of a row, ...]} of the tables of doc/results.md; heads left out."""
    tables, heading = {}, None
    with open(PAGE, encoding="utf-8") as f:
        for line in f:
            if line.startswith("## "):
                heading = line[3:].strip().strip("`")
            elif line.startswith("|"):
                cells = [c.strip().strip("`") for c in line.strip().strip("|").split("|")]
                tables.setdefault(heading, []).append(cells)
    return {name: rows[2:] for name, rows in tables.items()}


def page_examples():
    """Its programs in Python: one that reads a file, one that reads several."""
    with open(PAGE, encoding="utf-8") as f:
        return re.findall(r"```python\n(.*?)```", f.read(), re.S)


TYPES = {"int32": "<i4", "int64": "<i8", "uint64": "<u8", "float32": "<f4", "float64": "<f8"}
VARIABLE_TEXT = ("id", "error")


def page_dtype(rows):
    """The compound type of a table of the page."""
    def of(name, kind):
        if kind != "text":
            return TYPES[kind]
        return h5py.string_dtype() if name in VARIABLE_TEXT else "S16"
    return np.dtype([(name, of(name, kind)) for name, kind, *_ in rows])


def h5py_file(path, requests, completions, compression=None):
    """A generate job's file with one rank and the given requests (dicts of columns)."""
    tables = page_tables()
    with h5py.File(path, "w") as f:
        for name, kind, _ in tables["Attributes of the file"]:
            f.attrs[name] = {"text": "some text", "int64": 1, "float64": 2.0}[kind]
        f.attrs["completion_tokens_per_s"] = 0.5  # one token in two seconds
        f.attrs["tokens_per_s"] = 1.0
        for name, rows in (("requests", requests), ("ranks", [{"rank": 0, "host": "h"}]),
                           ("calls", [{"rank": 0, "kind": "send", "calls": 3}])):
            dtype = page_dtype(tables["/" + name])
            table = np.zeros(len(rows), dtype)
            for i, row in enumerate(rows):
                for column in dtype.names:
                    if column in VARIABLE_TEXT:
                        table[i][column] = row.get(column, "")
                    elif column in row:
                        table[i][column] = row[column]
            f.create_dataset(name, data=table, chunks=(max(len(rows), 1),), maxshape=(None,),
                             compression=compression)
        f.create_dataset("text/prompt", data=["p"] * len(requests), dtype=h5py.string_dtype())
        f.create_dataset("text/completion", data=completions, dtype=h5py.string_dtype())
        for part in ("prompt", "completion"):
            ids = [np.arange(r.get(part + "_tokens", 0), dtype="<i4") for r in requests]
            offsets = np.cumsum([0] + [len(i) for i in ids]).astype("<i8")
            f.create_dataset("tokens/" + part, data=np.concatenate(ids + [np.zeros(0, "<i4")]),
                             chunks=(64,), maxshape=(None,), compression=compression)
            f.create_dataset(f"tokens/{part}_offsets", data=offsets)
    return path
