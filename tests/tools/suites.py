"""What tests of a bench job's suites share: running one, and what holds for every table."""
import json
import os

import h5py
import numpy as np

from results_maker import TYPES, page_tables
from saftest import job_file, saf


def run_suites(tap, folder, name, suites, *words, ranks=2, more="", code=0):
    """The open results file; None when it did not run."""
    listed = ", ".join(f'"{s}"' for s in suites)
    out = os.path.join(folder, name.replace(" ", "-") + ".h5")
    job = job_file(folder, f'job = "bench";\nbench: {{ suites = [{listed}]; repeats = 3; }};\n'
                           f'layout: {{ threads = 1; }};\n{more}output: {{ file = "{out}"; }};\n')
    p = saf("run", job, *words, ranks=ranks)
    good = p.returncode == code and "error" not in p.stderr
    if not tap.ok(good, f"{name}: runs", p.stdout + p.stderr):
        return None
    check_report(tap, out, name, p.stdout)
    return h5py.File(out)


def of_json(v):
    if isinstance(v, bytes):
        return v.decode()
    return None if v != v else v


def check_report(tap, path, name, stdout):
    p, j = saf("report", path), saf("report", path, "--json")
    tap.ok(p.returncode == 0 and p.stdout.split("\n", 1)[1] in stdout, f"{name}: saf report prints what the run printed",
           p.stdout)
    bench = json.loads(j.stdout)["bench"]
    with h5py.File(path) as f:
        for group in f["bench"].values():
            for d in group.values() if isinstance(group, h5py.Group) else ():
                rows = [{c: of_json(r[c].item()) for c in r.dtype.names} for r in d[:]]
                tap.equal(bench[d.name[len("/bench/"):]], rows, f"{name}: --json has {d.name}")
                tap.ok(d.name in p.stdout, f"{name}: saf report shows {d.name}")


def check_table(tap, f, path):
    """The page says what the table is; medians lie within their spread, rates are amounts by seconds."""
    d, page = f[path], page_tables()[path]
    kinds = {v: k for k, v in TYPES.items()}
    saw = [[c, kinds.get(d.dtype[c].str, "text"), u, t] for c, u, t in
           zip(d.dtype.names, d.attrs["units"], d.attrs["column_descriptions"])]
    tap.equal(saw, page, f"{path}: columns are the page's")
    tap.ok(d.fletcher32 and d.attrs["description"], f"{path} has checksums and a description")
    rows = d[:]
    for c in d.dtype.names:
        if c.endswith("_min"):
            base = c[:-len("_min")]
            low, mid, high = rows[c], rows[base], rows[base + "_max"]
            there = ~np.isnan(mid)
            tap.ok((low[there] <= mid[there]).all() and (mid[there] <= high[there]).all() and (low[there] >= 0).all(),
                   f"{path}: {base} is within its spread", rows)
    return rows


def check_rates(tap, rows, amount, rate, path):
    """The median rate is the amount by the median of the seconds, the least by the most of them."""
    for end, other in (("", ""), ("_min", "_max"), ("_max", "_min")):
        tap.ok(np.allclose(rows[rate + end], rows[amount] / rows["seconds" + other]), f"{path}: {rate}{end} is {amount} by seconds",
               rows)
