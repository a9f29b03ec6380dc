"""saf report: tables, JSON and texts of files from the library and of files that h5py wrote by the
manual page; exit codes."""
import json
import os
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from results_maker import h5py_file, library_file  # noqa: E402
from saftest import ROOT, SAF, Tap, saf, scratch  # noqa: E402

tap = Tap()


def plain(v):
    if isinstance(v, bytes):
        return v.decode()
    v = v.item() if isinstance(v, np.generic) else v
    return None if isinstance(v, float) and not np.isfinite(v) else v


def check_json(path, label):
    run = saf("report", path, "--json")
    if not tap.ok(run.returncode == 0, f"{label}: --json", run.stderr):
        return
    got = json.loads(run.stdout)
    with h5py.File(path) as f:
        header = {n: plain(v) for n, v in f.attrs.items() if n not in ("ranks", "schema_version")}
        tap.equal({n: got.get(n) for n in header}, header, f"{label}: attributes")
        items = zip(*(f["identity/" + n].asstr() for n in ("names", "values"))) if "identity" in f else ()
        tap.equal(got["identity"], dict(items), f"{label}: identity")
        for name in ("ranks", "requests"):
            rows = [{c: plain(row[c]) for c in row.dtype.names} for row in f[name][:]]
            for row in rows:
                if row.get("error") == "":
                    row["error"] = None
            saw = [{c: row[c] for c in rows[0]} for row in got[name]] if rows else []
            tap.equal(saw, rows, f"{label}: {name}")
        calls = [dict(rank=r["rank"], **c) for r in got["ranks"] for c in r["calls"]]
        tap.equal(calls, [{c: plain(row[c]) for c in row.dtype.names} for row in f["calls"][:]],
                  f"{label}: calls")
        for part in ("prompt", "completion"):
            tap.equal([q[part] for q in got["requests"]], list(f["text/" + part].asstr()[:]),
                      f"{label}: text of each {part}")
            o = f[f"tokens/{part}_offsets"][:]
            ids = [f["tokens/" + part][a:b].tolist() for a, b in zip(o, o[1:])]
            tap.equal([q[part + "_ids"] or [] for q in got["requests"]], ids,
                      f"{label}: tokens of each {part}")
        if "logprobs" in f:
            o = f["logprobs/offsets"][:]
            values = [[plain(v) for v in f["logprobs/values"][a:b]] for a, b in zip(o, o[1:])]
            saw = [[None if v is None else np.float32(v).item() for v in q["logprobs"] or []]
                   for q in got["requests"]]
            tap.equal(saw, values, f"{label}: log-probabilities")


def check_overview(path):
    run = saf("report", path)
    tap.equal(run.returncode, 0, "the overview")
    for words in ("generate job, done", "tiny “model”", "models/tiny.gguf", "0-9, 10-19",
                  "loading 1.25 s, running 10.50 s", "token_embd.weight", "nöde-01", "avx512",
                  "17 requests: 14 done, 3 failed", "7 length", "7 eos", "3 error",
                  "failed: request-14-e: layer 3, position 17", "time to first token: median",
                  "[request-0-e] Grüße, 日本", "barrier"):
        tap.ok(words in run.stdout, f"the overview says \"{words}\"", run.stdout)
    with h5py.File(path) as f:
        # the fixture's times: 0.125 + i for i of 17, every fifth failed
        times = f["requests"]["time_to_first_token_s"][:]
        median = np.nanmedian(times)
        tap.ok(f"median {median:.3f} s, longest {np.nanmax(times):.3f} s" in run.stdout,
               "median and longest time", run.stdout)
        sums = {}
        for c in f["calls"][:]:
            sums[c["kind"]] = sums.get(c["kind"], 0) + int(c["calls"])
        for kind, n in sums.items():
            tap.ok([kind.decode(), str(n)] in [line.split()[:2] for line in run.stdout.splitlines()],
                   f"the calls of kind {kind.decode()} add up", run.stdout)


def check_tables(path):
    run = saf("report", path, "--requests")
    lines = run.stdout.splitlines()
    tap.equal((run.returncode, len(lines)), (0, 18), "--requests: a line per request")
    tap.equal(lines[5].split()[:5], ["request-4-e", "failed", "error", "7", "0"], "--requests: a row")
    run = saf("report", path, "--ranks", "--calls")
    tap.ok(run.returncode == 0 and run.stdout.count("nöde-0") == 2 and
           run.stdout.count("barrier") == 2 and "request" not in run.stdout, "--ranks --calls",
           run.stdout)


def innermost_shares(rows, end):
    """{kind: seconds} of what a rank did at the middle of every eighth of a second, until `end`; what is not in any
    row is idle. `rows` of one rank, shorter ones inside of longer ones."""
    shares = {}
    for at in np.arange(0, end, 0.125) + 0.0625:
        over = [r for r in rows if r["start_s"] <= at < r["end_s"]]
        kind = min(over, key=lambda r: r["end_s"] - r["start_s"])["kind"].decode() if over else "idle"
        shares[kind] = shares.get(kind, 0) + 0.125
    return shares


def check_timeline(folder, path):
    run = saf("report", path)
    head, *rest = run.stdout[run.stdout.index("rank  host     compute %"):].splitlines()
    names = [n for n in head.split() if n != "%"][2:]
    with h5py.File(path) as f:
        rows, run_s = f["timeline"][:], float(f.attrs["run_s"])
    for rank in 0, 1:
        shares = innermost_shares(rows[rows["rank"] == rank], run_s)
        known = run_s - shares.get("dropped", 0)
        tap.equal(rest[rank].split()[2:], [f"{100 * shares.get(n, 0) / known:.1f}" for n in names],
                  f"shares of rank {rank}")
    tap.ok(rest[2].startswith("rank 1: from second 2.000 of the run on"), "what is not kept", rest[2])

    run = saf("report", "--trace", path)
    tap.equal(run.returncode, 0, "--trace")
    events = json.loads(run.stdout)["traceEvents"]
    names = {(e["pid"], e["tid"], e["name"]): e["args"].get("name") for e in events if e["ph"] == "M"}
    hosts, ranks = ({k[:2]: v for k, v in names.items() if k[2] == what}
                    for what in ("process_name", "thread_name"))
    tap.equal((sorted(hosts.values()), sorted(ranks.values())),
              (["nöde-00", "nöde-01"], ["rank 0: layers 0-9, replica 0", "rank 1: layers 10-19, replica 1"]),
              "a process for each host, a thread for each rank")
    tap.equal(len({n for pair in hosts for n in pair} - {0}), 4, "no number is used twice, nor 0")
    of = {pair: int(name.split()[1][:-1]) for pair, name in ranks.items()}
    saw = [(of[e["pid"], e["tid"]], e["name"], round(e["ts"] / 1e6, 9), round(e["dur"] / 1e6, 9),
            e["args"].get("flight", -1), e["args"].get("tokens", 0)) for e in events if e["ph"] == "X"]
    tap.equal(saw, [(r["rank"], r["kind"].decode(), r["start_s"], r["end_s"] - r["start_s"],
                     r["flight"], r["tokens"]) for r in rows], "an event for each row, in microseconds")

    two = os.path.join(folder, "two.h5")
    with open(path, "rb") as a, open(two, "wb") as b:
        b.write(a.read())
    with h5py.File(two, "r+") as f:
        ranks = f["ranks"][:]
        ranks["host"], ranks["replica"], ranks["part"] = "same", 0, ranks["rank"]
        f["ranks"][:] = ranks
    events = json.loads(saf("report", "--trace", two).stdout)["traceEvents"]
    tap.equal((len({e["pid"] for e in events}), len({e["tid"] for e in events})), (1, 2),
              "two ranks of a host are threads of one process")
    tap.equal([e["args"]["name"] for e in events if e["name"] == "thread_name"],
              ["rank 0: layers 0-9, part 0", "rank 1: layers 10-19, part 1"], "parts of a stage are named")
    with h5py.File(two, "r+") as f:
        del f["timeline"]
    run = saf("report", "--trace", two)
    tap.ok(run.returncode == 65 and "run.trace = true" in run.stderr and run.stdout == "",
           "--trace of a file without a timeline", run.stderr)
    tap.ok("compute %" not in saf("report", two).stdout, "no shares without a timeline")


def check_text(path):
    texts = ["plain", "Grüße, 日本", "😀 two\nlines\t\"quoted\"\\"]
    for word in ("request-2-e", "3"):
        run = saf("report", path, "--text", word)
        tap.equal((run.returncode, run.stdout), (0, texts[2] + texts[0] + "\n"), f"--text {word}")
    run = saf("report", path, "--text", "5")
    tap.ok(run.stdout.startswith(texts[1] + "\nfailed: layer 3"), "--text of a failed request",
           run.stdout)
    for word in ("0", "18", "-1", "x", "", "99999999999999999999"):
        tap.equal(saf("report", path, "--text", word).returncode, 2, f"--text \"{word}\"")


def check_exit_codes(folder, path):
    def code(*words):
        run = saf("report", *words)
        return run.returncode, bool(run.stderr), run.stdout == ""

    tap.equal(code(), (2, True, True), "no file")
    tap.equal(code(path, path), (2, True, True), "two files")
    tap.equal(code(path, "--nonsense"), (2, True, True), "an option that is none")
    tap.equal(code(path, "--json", "--ranks"), (2, True, True), "--json and a table")
    tap.equal(code(path, "--json", "--trace"), (2, True, True), "--json and --trace")
    tap.equal(code(os.path.join(folder, "none.h5")), (66, True, True), "a missing file")
    tap.equal(code(folder), (66, True, True), "a folder")
    tap.equal(code(__file__), (65, True, True), "no HDF5 file")
    other = os.path.join(folder, "other.h5")
    h5py.File(other, "w").close()
    tap.equal(code(other), (65, True, True), "another HDF5 file")
    cut = os.path.join(folder, "cut.h5")
    with open(path, "rb") as whole, open(cut, "wb") as out:
        out.write(whole.read()[:-100])
    tap.equal(code(cut), (65, True, True), "a file cut short")
    tap.equal(saf("report", "--help").returncode, 0, "--help")
    if os.path.exists("/dev/full"):
        for words in ([], ["--json"], ["--trace"], ["--requests"], ["--text", "1"]):
            with open("/dev/full", "w", encoding="utf-8") as full:
                run = subprocess.run([SAF, "report", path, *words], cwd=ROOT, stdout=full,
                                     stderr=subprocess.PIPE, check=False)
            tap.equal(run.returncode, 74, f"a full disk below the report {words}")


def check_hostile_text(folder):
    path = os.path.join(folder, "hostile.h5")
    h5py_file(path, [{"id": "a\x1b[31m", "state": "done", "completion_tokens": 2}],
              ["\x1b]0;title\x07\x9b?x\r\nend\x7f"])
    for words in ([], ["--requests"], ["--text", "1"]):
        run = saf("report", path, *words)
        tap.ok(run.returncode == 0 and not any(c < " " and c not in "\n\t" or "\x7f" <= c < "\xa0"
                                               for c in run.stdout),
               f"no control characters reach a terminal {words}", repr(run.stdout + run.stderr))
    check_json(path, "control characters")


with scratch() as folder:
    path = library_file(os.path.join(folder, "r.h5"))
    check_overview(path)
    check_tables(path)
    check_text(path)
    check_timeline(folder, path)
    check_exit_codes(folder, path)
    check_json(path, "generate")
    check_json(library_file(os.path.join(folder, "s.h5"), "score", 7, 2), "score")
    check_json(library_file(os.path.join(folder, "e.h5"), "generate", 0, 0), "no requests")
    score = saf("report", os.path.join(folder, "s.h5")).stdout
    with h5py.File(os.path.join(folder, "s.h5")) as f:
        q = f["requests"][:]
        good = q[q["state"] == b"done"]
        perplexity = np.exp(-good["log_likelihood"].sum() / (good["prompt_tokens"] - 1).sum())
    tap.ok(f"perplexity {perplexity:.6g}" in score, "perplexity of all texts", score)

    requests = [{"id": f"ä{i}", "state": "done", "finish_reason": "eos", "prompt_tokens": 4,
                 "completion_tokens": i % 5, "seed": 2**63 + i, "queue_s": 0.1 * i,
                 "perplexity": float("nan")} for i in range(2000)]
    texts = [f"text {i} ✓" for i in range(2000)]
    for compression in (None, "gzip"):
        check_json(h5py_file(os.path.join(folder, "p.h5"), requests, texts, compression),
                   f"a file that h5py wrote, {compression}")
    packed = os.path.join(folder, "packed.h5")
    subprocess.run(["h5repack", "-f", "GZIP=9", path, packed], check=True)
    check_json(packed, "a repacked file")
    check_hostile_text(folder)
tap.exit()
