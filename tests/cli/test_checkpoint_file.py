"""Checkpoints without saf: h5py opens them, and they are what doc/results.md says."""
import glob
import hashlib
import os
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from results_maker import MAKER, TYPES, page_tables  # noqa: E402
from saftest import ROOT, Tap, scratch  # noqa: E402

tap = Tap()
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "I8": "|i1", "I16": "<i2", "I32": "<i4",
          "I64": "<i8", "U8": "|u1"}
# of saf_dtype, from which the fixture makes the values
NUMBERS = {"F32": 0, "F16": 1, "BF16": 2, "F64": 3, "I8": 4, "I16": 5, "I32": 6, "I64": 7, "U8": 8}


def write(path, number, scale=50):
    subprocess.run([MAKER, path, "checkpoint", str(number), str(scale)], cwd=ROOT, check=True)


def values(dtype, n, number):
    """The bytes that tests/checkpoint_fixture.h makes."""
    x = 88172645463325252 + number * 977 + dtype
    out = bytearray()
    for _ in range(n):
        x ^= x << 13 & (1 << 64) - 1
        x ^= x >> 7
        x ^= x << 17 & (1 << 64) - 1
        out.append(x >> 32 & 255)
    return bytes(out)


def check_seal(raw):
    tap.equal(raw[:16], b"saf-ckpt" + (1).to_bytes(4, "little") + bytes(4), "the user block's beginning")
    tap.equal(int.from_bytes(raw[16:24], "little"), len(raw) - 512, "the length after it")
    tap.equal(raw[24:56], hashlib.sha256(raw[512:]).digest(), "the SHA-256 of what follows")
    tap.equal(raw[56:512], bytes(456), "zeros to its end")


def check_attributes(f):
    kinds = {v: k for k, v in TYPES.items()}
    saw = {n: "text" if isinstance(v, str) else kinds[np.asarray(v).dtype.str] for n, v in f.attrs.items()}
    tap.equal(f.attrs["model_name"], "tiny", "the model's name")
    page = page_tables()["Attributes of a checkpoint"]
    tap.equal(saw, {name: kind for name, kind, _ in page}, "attributes are the page's")
    tap.equal([int(f.attrs[n]) for n in ("checkpoint_schema", "done", "total", "tokens", "resumes")],
              [1, 7, 107, 119, 2], "numbers of the head")
    tap.equal((f.attrs["job_kind"], f.attrs["written"], float(f.attrs["seconds"])),
              ("generate", "2026-01-31T12:34:56Z", 0.875), "texts of the head")
    tap.equal(dict(zip(f["identity/names"].asstr(), f["identity/values"].asstr())),
              {"model": "Grüße", "generate.max_tokens": "12", "input.prompts": "", "number": "7"},
              "the identity")


def check_state(f):
    tap.equal(len(f["state"]), 9, "arrays of the state")
    for name, d in f["state"].items():
        stored = STORED[d.attrs["dtype"]]
        tap.equal((d.dtype.str, d.ndim), (stored, 1), f"{name} is {d.attrs['dtype']}")
        i = int(name.split("_")[1])
        n = 0 if i == 7 else 50 * (3 + i)
        tap.equal((list(STORED).index(d.attrs["dtype"]), len(d)), (i, n), f"{name} has what was put")
        tap.equal(d[:].tobytes(), values(NUMBERS[d.attrs["dtype"]], n * d.dtype.itemsize, 7),
                  f"values of {name}")


with scratch() as folder:
    path = os.path.join(folder, "r.h5")
    for number in (5, 6, 7):
        write(path, number)
    tap.equal(sorted(os.path.basename(p) for p in glob.glob(path + "*")), ["r.h5.ckpt-2", "r.h5.ckpt-3"],
              "the newest two are there")
    with open(path + ".ckpt-3", "rb") as raw:
        check_seal(raw.read())
    with h5py.File(path + ".ckpt-3") as f:
        tap.equal((f.libver[0], f.userblock_size), ("earliest", 512), "the earliest file format")
        check_attributes(f)
        check_state(f)
    dump = subprocess.run(["h5dump", "-d", "/state/values_6", path + ".ckpt-3"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    tap.ok(dump.returncode == 0 and "H5T_STD_I32LE" in dump.stdout, "h5dump reads it", dump.stdout)
tap.exit()
