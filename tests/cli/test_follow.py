"""Runs follow plans: the layout that a plan names for these ranks, the same bits whatever it is, what was planned
beside what came of it, and the memory of every rank against its plan."""
import json
import os
import re
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from profiles import invent  # noqa: E402
from saftest import PATIENCE, STORIES, Tap, job_file, saf, scratch, watched  # noqa: E402

tap = Tap()


def job(folder, model, requests, prompt, tokens, name):
    with open(os.path.join(folder, f"{name}.txt"), "w", encoding="utf-8") as f:
        for i in range(requests):
            f.write(" ".join(str(65 + (i + k) % 26) for k in range(prompt)) + "\n")
    return job_file(folder, f'job = "generate"; model: {{ path = "{model}"; }}; input: {{ tokens = "{folder}/{name}.txt"; }};'
                    f'generate: {{ max_tokens = {tokens}; ignore_eos = true; }}; output: {{ file = "{folder}/{name}.h5"; }};',
                    f"{name}.cfg")


def layout(text):
    """Replicas, stages and parts of a line of --dry-run or an attribute."""
    found = re.match(r"(?:replicas (\d+) x )?pipeline (\d+)(?: x tensor (\d+))?:", text)
    return [int(n or 1) for n in found.groups()] if found else text


def run(path, *words, ranks=2):
    p = saf("run", path, "--quiet", *words, ranks=ranks)
    if not tap.ok(p.returncode == 0, f"{os.path.basename(path)} {' '.join(words)}", p.stderr):
        return None
    with h5py.File(path[:-4] + ".h5") as f:
        attrs = dict(f.attrs)
        attrs["peaks"] = f["ranks"]["peak_memory_bytes"][:].tolist()
        attrs["planned"] = f["plan"]["memory_bytes"][:].tolist() if "plan" in f else None
    return attrs


def follows(folder, here, name):
    """Links cost little and cores are slow: with many requests copies of the model are best, with one request of a
    larger model its parts; the job is the same either way."""
    slow = dict(host=name, ranks=2, usable_cores=2, memory_limit_bytes=-1, memory_bytes=8 * 10 ** 9, read_bytes_s=1e7,
                int8_ops_s=1e8, f32_ops_s=2e7, tile_ops_s=float("nan"))
    profile = invent(here, os.path.join(folder, "slow.h5"), [slow])
    text = job(folder, STORIES, 8, 12, 8, "many")
    usual = run(text, "run.profile=none")
    followed = run(text, f"run.profile={profile}")
    if not usual or not followed:
        return
    tap.ok(usual["plan_rates"] == "rules of thumb" and followed["plan_rates"].startswith(f"profile {profile} of "),
           "where the rates are from", f"{usual['plan_rates']} {followed['plan_rates']}")
    tap.equal(layout(usual["layout"]), [1, 1, 2], "a job of less than a second keeps the usual layout")
    p = saf("plan", text, "--profile", profile, "--json")
    best = [x for x in json.loads(p.stdout)["layouts"] if x["ranks"] == 2][0]
    tap.equal(layout(followed["layout"]), [best["replicas"], best["pipeline"], best["tensor"]], "as saf plan says")
    tap.ok(abs(followed["plan_run_s"] / best["job_s"] - 1) < 0.01, "with the time that it says",
           f"{followed['plan_run_s']} {best['job_s']}")
    tap.equal(followed["tokens_sha256"], usual["tokens_sha256"], "the same bits")
    p = saf("run", text, "--dry-run", f"run.profile={profile}", ranks=2)
    tap.equal(layout(p.stdout), layout(followed["layout"]), "--dry-run says the same layout")
    kept = run(text, "layout.pipeline=2", f"run.profile={profile}")
    tap.ok(kept and layout(kept["layout"]) == [1, 2, 1] and kept["tokens_sha256"] == usual["tokens_sha256"],
           "what the job says of its layout is kept")
    p = saf("report", text[:-4] + ".h5")
    tap.ok("plan off by" in p.stdout and "largest rank MB" in p.stdout, "saf report shows both", p.stdout)
    got = json.loads(saf("report", text[:-4] + ".h5", "--json").stdout)["plan"]
    tap.ok(got["run_s"] > 0 and got["measured_run_s"] > 0 and len(got["rank_memory_bytes"]) == 2, "and as JSON", str(got))
    refused(text, 65, "is of other hosts", "run.profile=" + invent(here, os.path.join(folder, "o.h5"), [dict(slow, host=b"elsewhere")]))
    refused(text, 66, "nowhere.h5", "run.profile=nowhere.h5")
    stale = invent(here, os.path.join(folder, "s.h5"), [slow], time="2020-01-01T00:00:00Z")
    p = saf("run", text, "--quiet", f"run.profile={stale}")
    tap.ok(p.returncode == 0 and "is stale" in p.stderr, "a stale one is said to be, and taken", p.stderr)


def fewer_cores(folder, here, name):
    """A rank of fewer cores than were measured has its part of the rates, and reads what so many cores can."""
    text = job(folder, STORIES, 1, 40, 40, "cores")
    usual = dict(host=name, ranks=1, memory_limit_bytes=-1, memory_bytes=8 * 10 ** 9, tile_ops_s=float("nan"))
    for what, all_read, core_read, read in (("as much as two cores can", 30e7, 11e7, 22e7), ("no less than their part", 30e7, 4e7, 15e7)):
        times = []
        for cores, read_bytes_s in ((4, all_read), (2, read)):
            figures = dict(usual, usable_cores=cores, read_bytes_s=read_bytes_s, int8_ops_s=cores * 1e9, f32_ops_s=cores * 2e8,
                           core_read_bytes_s=core_read)
            got = run(text, "layout.threads=2", "run.profile=" + invent(here, os.path.join(folder, f"cores{cores}.h5"), [figures]), ranks=1)
            times.append(got["plan_run_s"] if got else 0)
        tap.ok(times[1] > 0 and abs(times[0] / times[1] - 1) < 1e-9, f"two of four cores read {what}", str(times))
    disturbed = dict(usual, usable_cores=2, product_share=1.3, hidden_share=1.1)
    run(text, "run.profile=" + invent(here, os.path.join(folder, "disturbed.h5"), [disturbed]), ranks=1)


def usual_place(folder, here, name):
    """The profile that saf detect keeps of these hosts is found, unless it is stale."""
    place = os.path.join(folder, "place")
    os.mkdir(place)
    with h5py.File(here) as f:
        key = f.attrs["hosts_key"][:16]
    text = job(folder, STORIES, 2, 4, 4, "place")
    for time, expected in ((None, "profile "), ("2020-01-01T00:00:00Z", "rules of thumb")):
        invent(here, os.path.join(place, f"hosts-{key}.h5"), [dict(host=name)], **({"time": time} if time else {}))
        p = saf("run", text, "--quiet", env={"SAF_PROFILES": place})
        with h5py.File(text[:-4] + ".h5") as f:
            tap.ok(p.returncode == 0 and f.attrs["plan_rates"].startswith(expected), f"by {expected}", p.stderr)
        said = p.stderr.count("is not used: it is ")
        tap.equal(said, 1 if time else 0, "a stale one is said to be left out, once")
    kept = os.path.join(place, f"hosts-{key}.h5")
    with open(kept, "r+b") as f:
        f.truncate(os.path.getsize(kept) // 2)
    for what, times in (("a damaged one is said to be left out, once", 1), ("none is no word worth", 0)):
        p = saf("run", text, "--quiet", env={"SAF_PROFILES": place}, ranks=2)
        tap.ok(p.returncode == 0 and p.stderr.count("is not used") == times and p.stderr.count(kept) >= times, what, p.stderr)
        if times:
            os.remove(kept)


def refused(text, code, says, *words):
    p = saf("run", text, "--quiet", *words)
    tap.ok(p.returncode == code and says in p.stderr, f"refused: {says}", f"{p.returncode} {p.stderr}")


def memory(folder):
    """Peaks of uneven ranks within a twentieth of what was planned for each."""
    model = os.path.join(folder, "m.gguf")
    p = saf("model", "make", model, "--arch", "qwen3", "--shape", "12:1024:16:8:128:3072", "--vocab-size", "16000")
    tap.ok(p.returncode == 0, "a model of 230 MB", p.stderr)
    text = job(folder, model, 4, 200, 4, "memory")
    for words in (["layout.pipeline=2", "layout.share=[3,1]"], ["layout.tensor=2", "layout.share=[2,1]"], ["layout.replicas=2"]):
        got = run(text, *words)
        if not got:
            continue
        off = [planned / peak - 1 for planned, peak in zip(got["planned"], got["peaks"])]
        if watched() or PATIENCE > 1:
            tap.skip("memory as planned", "a sanitizer takes memory itself")
        else:
            tap.ok(all(abs(x) < 0.05 for x in off), "memory as planned", f"{off} {got['planned']} {got['peaks']}")


with scratch() as folder:
    here = os.path.join(folder, "here.h5")
    p = saf("detect", "--output", here, "--folder", folder, "--quiet")
    if tap.ok(p.returncode == 0, "this host's profile", p.stderr):
        with h5py.File(here) as f:
            name = f["hosts"]["host"][0]
        follows(folder, here, name)
        fewer_cores(folder, here, name)
        usual_place(folder, here, name)
    memory(folder)
tap.exit()
