"""Suite model of a bench job on several ranks: requests by copies and by stages, how busy ranks are, and what bounds
the phases in words that the figures bear out."""
import os
import re
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import STORIES, Tap, job_file, saf, scratch  # noqa: E402
from suites import check_rates, check_table, run_suites  # noqa: E402

tap = Tap()


def layouts(ranks):
    return [x for k in range(1, ranks + 1) for x in ([(k, 1)] if k == 1 else [(k, 1), (1, k)])]


def check_scaling(f, ranks):
    path = "/bench/model/scaling"
    rows = check_table(tap, f, path)
    tap.equal([(int(r["replicas"]), int(r["stages"]), int(r["tokens"])) for r in rows],
              [(*l, t) for l in layouts(ranks) for t in (3, 7)], f"{ranks} ranks: copies and stages")
    tap.ok((rows["requests"] == ranks).all() and
           np.allclose(rows["tokens_per_s"], rows["tokens"] * rows["requests"] / rows["seconds"]) and
           np.allclose(rows["tokens_per_s_max"], rows["tokens"] * rows["requests"] / rows["seconds_min"]),
           f"{ranks} ranks: tokens a second", rows)
    tap.ok((rows["first_token_s"] > 0).all() and (rows["first_token_s_min"] <= rows["seconds_max"]).all(),
           f"{ranks} ranks: first tokens", rows)


def check_busy(f, ranks):
    rows = check_table(tap, f, "/bench/model/busy")
    expected = sorted((r, *l, t) for l in layouts(ranks) for t in (3, 7) for r in range(l[0] * l[1]))
    tap.equal(sorted(tuple(int(r[c]) for c in ("rank", "replicas", "stages", "tokens")) for r in rows), expected,
              f"{ranks} ranks: everybody who takes part")
    tap.ok((rows["busy"] >= 0).all() and (rows["busy_max"] <= 1).all() and
           (rows["busy_min"] + 0 <= 1).all() and (rows["waiting"] >= 0).all(), f"{ranks} ranks: shares", rows)


def check_roofline(f, ranks):
    rows = check_table(tap, f, "/bench/model/roofline")
    tap.equal([int(r) for r in rows["rank"]], list(range(ranks)), f"{ranks} ranks: words for each")
    phases = {p["phase"].decode(): p for p in f["bench/phases"][:]}
    for words in (bytes(r).decode() for r in rows["words"]):
        said = re.findall(r"; ([^;]*?) is bound by (memory|arithmetic): ([\d.]+) operations a byte, the ridge is at ([\d.]+)", words)
        tap.equal([s[0] for s in said], [p for p in phases if p != "load"], "a word on every phase")
        for name, what, intensity, ridge in said:
            p = phases[name]
            exact = (p["int8_ops"] + p["float_ops"]) / (p["weight_bytes"] + p["kv_bytes"])
            good = abs(float(intensity) - exact) < 0.051
            good &= what == ("memory" if exact < float(ridge) else "arithmetic") or abs(exact - float(ridge)) < 0.06
            if not good:
                tap.ok(False, "operations a byte, and what they mean", words)
                return
    tap.ok(True, f"{ranks} ranks: what the words say")


with scratch() as where:
    more = f'model: {{ path = "{STORIES}"; }};\n'
    for count in (1, 2, 3):
        results = run_suites(tap, where, f"{count} ranks", ["model"], "bench.completions=[3,7]", "bench.read_mib=2",
                             "bench.prompt_tokens=9", "bench.decode_tokens=2", "bench.context=20", "bench.sequences=2",
                             ranks=count, more=more)
        if results:
            with results:
                check_scaling(results, count)
                check_busy(results, count)
                check_roofline(results, count)
    job = job_file(where, f'job = "bench";\n{more}output: {{ file = "{where}/w.h5"; }};\n')
    p = saf("run", job, "bench.completions=[500]", "bench.context=0")
    tap.ok(p.returncode == 2 and "bench.completions: 500 tokens after 16" in p.stderr and p.stdout == "",
           "longer than the model's context", p.stderr)
tap.exit()
