"""Suites memory, compute, matmul and storage of a bench job: tables are what the page says, with a row for each thing
that was to be measured, and figures that follow from each other."""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import Tap, job_file, saf, scratch  # noqa: E402
from suites import check_rates, check_table, run_suites  # noqa: E402

tap = Tap()
TRAFFIC = {b"read": 1, b"write": 2, b"write, streaming": 1, b"copy": 3, b"copy, streaming": 2}


def check_memory(f, ranks, threads):
    path = "/bench/memory/bandwidth"
    rows = check_table(tap, f, path)
    check_rates(tap, rows, "bytes", "bytes_per_s", path)
    for r in range(ranks):
        mine = rows[rows["rank"] == r]
        alone = mine[mine["together"] == 1]
        tap.equal({(int(n), bytes(o)) for n, o in zip(alone["threads"], alone["operation"])} >=
                  {(n, o) for n in {1, threads} for o in (b"read", b"write", b"copy")}, True,
                  f"{ranks} ranks: rank {r} reads, writes and copies with 1 to {threads} threads")
        tap.equal(set(mine["together"]), {1, ranks}, f"{ranks} ranks: rank {r} alone and with the others")
    tap.ok(all(b == TRAFFIC[bytes(o)] * n for o, n, b in zip(rows["operation"], rows["bytes"], rows["bus_bytes"])),
           f"{ranks} ranks: what the bus carries", rows)
    tap.ok(np.allclose(rows["bus_bytes_per_s"], rows["bus_bytes"] / rows["seconds"]) and (rows["bytes_per_s"] > 1e7).all()
           and (rows["bytes_per_s"] < 1e13).all(), f"{ranks} ranks: rates of memory", rows)


def check_touch(f, ranks):
    path = "/bench/memory/touch"
    rows = check_table(tap, f, path)
    tap.equal([(int(r["rank"]), int(r["bytes"])) for r in rows], [(r, n << 20) for r in range(ranks) for n in (3, 5)],
              f"{ranks} ranks: fresh memory")
    done = rows[rows["state"] == b"done"]
    tap.ok(len(done) == len(rows) and (rows["right"] == 1).all() and
           np.allclose(rows["touch_bytes_per_s"], rows["bytes"] / rows["touch_s"]) and
           np.allclose(rows["sum_bytes_per_s"], rows["bytes"] / rows["sum_s"]), f"{ranks} ranks: sums and rates", rows)


def check_compute(f, ranks):
    path = "/bench/compute/peaks"
    rows = check_table(tap, f, path)
    for r in range(ranks):
        kinds = [bytes(k) for k in rows["kind"][rows["rank"] == r]]
        tap.ok(kinds in ([b"f32", b"f64", b"int8"], [b"f32", b"f64", b"int8", b"int8 tiles"]), f"peaks of rank {r}", kinds)
    tap.ok((rows["ops_per_s_min"] > 1e6).all() and (rows["ops_per_s_max"] < 1e15).all(), f"{ranks} ranks: peaks", rows)
    tap.ok((rows["ridge"] > 0).all() and (rows["instructions"] != b"").all(), f"{ranks} ranks: ridges", rows)


def check_products(f, ranks):
    path = "/bench/matmul/products"
    rows = check_table(tap, f, path)
    tap.equal([(bytes(r["dtype"]), int(r["n"]), int(r["ranks"])) for r in rows],
              [(t, n, p) for t in (b"F32", b"F64") for n in (64, 97) for p in range(1, ranks + 1)],
              f"{ranks} ranks: products of every size by 1 to {ranks}")
    n = rows["n"].astype(float)
    tap.ok(np.allclose(rows["ops_per_s"], 2 * n ** 3 / rows["seconds"]), "operations a second", rows)
    for r in rows:
        one = rows[(rows["dtype"] == r["dtype"]) & (rows["n"] == r["n"]) & (rows["ranks"] == 1)][0]
        if not np.isclose(r["efficiency"], r["ops_per_s"] / one["ops_per_s"] / r["ranks"]):
            tap.ok(False, "efficiency against one rank", (r, one))
            return
    tap.ok((rows["grid_m"] * rows["grid_n"] * rows["grid_k"] <= rows["ranks"]).all(), "efficiency against one rank, grids",
           rows)


def check_storage(f, ranks, folder):
    path = "/bench/storage/files"
    rows = check_table(tap, f, path)
    check_rates(tap, rows, "bytes", "bytes_per_s", path)
    tap.equal([(bytes(r["operation"]), int(r["bytes"])) for r in rows],
              [(o, 2 << 20) for o in (b"results write", b"results read", b"checkpoint write", b"checkpoint read")],
              f"{ranks} ranks: files")
    tap.equal([n for n in os.listdir(folder) if "bench-" in n or "ckpt" in n or n.endswith(".part")], [],
              "the files that were measured are gone")


def short_of_memory(folder):
    f = run_suites(tap, folder, "more than there is", ["memory"], "bench.read_mib=2", "bench.touch_mib=[3,1048576]", ranks=0)
    if f:
        with f:
            rows = f["bench/memory/touch"][:]
            tap.equal([bytes(s) for s in rows["state"]], [b"done", b"skipped"], "memory that is not there is left out")
            tap.ok(np.isnan(rows["touch_s"][1]) and rows["right"][1] == -1, "and has no figures", rows)


def wrong(folder):
    job = job_file(folder, f'job = "bench";\nbench: {{ suites = ["storage"]; }};\noutput: {{ file = "{folder}/w.h5"; }};\n')
    for word, say in (("bench.file_mib=0", "bench.file_mib: expected"), ("bench.touch_mib=[0]", "bench.touch_mib: expected"),
                      ("bench.products=[1,2.5]", "bench.products: expected")):
        p = saf("run", job, word)
        tap.ok(p.returncode == 2 and say in p.stderr and p.stdout == "", word, p.stderr)


with scratch() as where:
    for count, threads in ((1, 2), (2, 1), (3, 1)):
        results = run_suites(tap, where, f"{count} ranks", ["memory", "compute", "matmul", "storage"], "bench.read_mib=2",
                             "bench.touch_mib=[3,5]", "bench.products=[64,97]", "bench.file_mib=2",
                             f"layout.threads={threads}", ranks=count)
        if results:
            with results:
                check_memory(results, count, threads)
                check_touch(results, count)
                check_compute(results, count)
                check_products(results, count)
                check_storage(results, count, where)
    short_of_memory(where)
    wrong(where)
tap.exit()
