"""Suite comm of a bench job: who talks to whom and how much is what the page says, tensors come back as they were
sent, and suites that are none are refused."""
import itertools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ROOT, Tap, job_file, saf, scratch  # noqa: E402
from suites import check_rates, check_table, run_suites  # noqa: E402

tap = Tap()
MOST = 20000
BLOCKS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "F64": (1, 8), "I8": (1, 1), "I16": (1, 2), "I32": (1, 4),
          "I64": (1, 8), "U8": (1, 1), "Q8_0": (32, 34), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22),
          "Q5_1": (32, 24), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176),
          "Q6_K": (256, 210)}


def sizes(most):
    return [s for s in (4 ** i for i in range(20)) if s < most] + [most]


def check_pairs(f, ranks):
    path = "/bench/comm/pairs"
    rows = check_table(tap, f, path)
    check_rates(tap, rows, "bytes", "bytes_per_s", path)
    expected = [(1, s) for s in sizes(MOST)] + [(10, 10 * s) for s in sizes(MOST) if 10 * s <= MOST]
    for a, b in itertools.combinations(range(ranks), 2):
        mine = rows[(rows["rank_a"] == a) & (rows["rank_b"] == b)]
        tap.equal([(int(r["at_once"]), int(r["bytes"])) for r in mine], expected, f"{ranks} ranks: messages of {a} and {b}")
        tap.ok(len({*mine["host_a"], *mine["host_b"]}) == 1 and mine["host_a"][0], f"hosts of {a} and {b}", mine)
    tap.equal(len(rows), ranks * (ranks - 1) // 2 * len(expected), f"{ranks} ranks: no other pairs")
    tap.ok((rows["seconds"] > 1e-8).all() and (rows["seconds"] < 10).all() and (rows["repeats"] == 3).all(),
           f"{ranks} ranks: times of messages", rows)


def check_collectives(f, ranks):
    path = "/bench/comm/collectives"
    rows = check_table(tap, f, path)
    check_rates(tap, rows, "bytes", "bytes_per_s", path)
    for n in range(2, ranks + 1):
        for op in (b"barrier", b"broadcast", b"all-reduce", b"reduce-scatter", b"all-gather"):
            mine = [int(b) for b in rows["bytes"][(rows["operation"] == op) & (rows["ranks"] == n)]]
            unit = {b"broadcast": 1, b"all-reduce": 4, b"reduce-scatter": 4 * n, b"all-gather": n}.get(op)
            expected = [0] if unit is None else sorted({max(unit, s // unit * unit) for s in sizes(MOST)})
            tap.equal(mine, expected, f"{n} of {ranks} ranks: sizes of {op.decode()}")
    tap.equal(set(rows["ranks"]), set(range(2, ranks + 1)), f"{ranks} ranks: every number of them")
    tap.ok((rows["seconds"] > 0).all() and (rows["seconds"] < 10).all(), f"{ranks} ranks: times of collectives", rows)


def check_tensors(f, ranks):
    path = "/bench/comm/tensors"
    rows = check_table(tap, f, path)
    check_rates(tap, rows, "bytes", "bytes_per_s", path)
    tap.equal([(int(r["rank_a"]), int(r["rank_b"]), r["dtype"].decode(), int(r["ndim"])) for r in rows],
              [(0, b, t, n) for b in range(1, ranks) for t in BLOCKS for n in (1, 2, 3, 4)],
              f"{ranks} ranks: tensors of every type and number of dimensions")
    tap.ok((rows["same"] == 1).all(), f"{ranks} ranks: they come back as they were sent", rows)
    for r in rows:
        shape = [int(x) for x in r["shape"].decode().split("x")]
        block, size = BLOCKS[r["dtype"].decode()]
        n = 1
        for x in shape:
            n *= x
        if len(shape) != r["ndim"] or n % block or n // block * size != r["bytes"] or r["bytes"] <= 0:
            tap.ok(False, "bytes of a shape", r)
            return
    tap.ok(True, f"{ranks} ranks: bytes are those of the shapes")


def wrong(folder):
    job = job_file(folder, f'job = "bench";\nbench: {{ suites = ["comm"]; }};\noutput: {{ file = "{folder}/w.h5"; }};\n')
    for name, say, word in (("a suite that is none", "bench.suites: expected a list of some of model, comm, memory, compute, matmul, storage", '["com"]'),
                            ("a suite that is a number", "bench.suites", "[1]"),
                            ("no list", "bench.suites", "comm"),
                            ("no suite at all", "bench.suites: expected at least one suite", "[]"),
                            ("no model for its suite", "model.path: missing", '["comm", "model"]')):
        p = saf("run", job, f"bench.suites={word}")
        tap.ok(p.returncode == 2 and p.stderr.count("error: ") == 1 and say in p.stderr and p.stdout == "", name,
               f"exit {p.returncode}\n{p.stdout}{p.stderr}")
    for word in ("bench.message_bytes=0", "bench.message_bytes=2000000000"):
        p = saf("run", job, word)
        tap.ok(p.returncode == 2 and "bench.message_bytes: expected" in p.stderr, word, p.stderr)
    p = saf("run", job, "--dry-run", ranks=2)
    tap.ok(p.returncode == 0 and "suites: comm; 2 ranks" in p.stdout and not os.path.exists(f"{folder}/w.h5"),
           "--dry-run", p.stdout + p.stderr)
    p = saf("run", job)
    tap.ok(p.returncode == 0 and "nobody to talk to" in p.stderr and os.path.exists(f"{folder}/w.h5"), "one rank alone",
           p.stdout + p.stderr)
    p = saf("run", os.path.join(ROOT, "jobs", "bench-cluster.cfg"), "--dry-run", f"output.file={folder}/x.h5", ranks=2)
    tap.ok(p.returncode == 0 and "comm" in p.stdout, "jobs/bench-cluster.cfg is right", p.stdout + p.stderr)


with scratch() as where:
    for count in (2, 3, 4):
        results = run_suites(tap, where, f"{count} ranks", ["comm"], f"bench.message_bytes={MOST}", ranks=count)
        if results:
            with results:
                check_pairs(results, count)
                check_collectives(results, count)
                check_tensors(results, count)
    wrong(where)
tap.exit()
