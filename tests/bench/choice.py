"""Does the plan choose well over a link? `make bench-choice` (by RATES, TYPE, JOBS, REPEATS)

Two hosts of network namespaces, one core each, with links of each of RATES (100mbit, 1gbit, 10gbit, those of up to
1gbit without the bursts that would let messages of a few tokens pass at once). For each
job, REPEATS times, `saf detect` measures them, a plan is made from its profile, and the job runs by every layout in turn: on one host
alone, as a pipeline, as a tensor split. The choice is that of most of the plans, and right where it takes at most a tenth
longer than the fastest; of measured and planned times the medians are given.

  single  a prompt of 16 tokens, then 24 (time of a token)
  eight   eight of these at once (time of a token of each)
  long    a prompt of 2,048 (time to the first token)
"""
import json
import os
import statistics
import subprocess
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, job_file, scratch  # noqa: E402
from model import bench_model  # noqa: E402

RATES = os.environ.get("RATES", "100mbit:3200 1gbit:6k 10gbit").split()
REPEATS = int(os.environ.get("REPEATS", "5"))
LAYOUTS = {"alone": (1, 1, 1), "pipeline": (1, 2, 1), "tensor": (1, 1, 2)}  # replicas, stages, parts
JOBS = {"single": (1, 16, 24), "eight": (8, 16, 24), "long": (1, 2048, 1)}  # requests, prompt, tokens
PINNED = ["sh", "-c", 'exec taskset -c $OMPI_COMM_WORLD_RANK "$@"', "sh"]


def write_job(folder, model, job, pipeline, tensor):
    requests, prompt, tokens = JOBS[job]
    with open(os.path.join(folder, job + ".txt"), "w", encoding="utf-8") as f:
        for i in range(requests):
            f.write(" ".join(str((7919 * k + 31 * i) % 50000 + 256) for k in range(prompt)) + "\n")
    return job_file(folder, f"""job = "generate";
model: {{ path = "{model}"; }};
input: {{ tokens = "{folder}/{job}.txt"; }};
generate: {{ max_tokens = {tokens}; temperature = 0.0; ignore_eos = true; }};
layout: {{ threads = 1; replicas = 1; pipeline = {pipeline}; tensor = {tensor}; }};
run: {{ profile = "none"; }};
output: {{ file = "{folder}/out.h5"; }};
""", "job.cfg")


def measure(folder, model, job, layout):
    _, stages, parts = LAYOUTS[layout]
    path, line = write_job(folder, model, job, stages, parts), ["mpirun"]
    for host in ("h1", "h2")[:stages * parts]:
        line += ["-np", "1", "--host", host + ":2", *PINNED, SAF, "run", path, "--fresh", "--quiet", ":"]
    subprocess.run(line[:-1], cwd=ROOT, env=ENV, check=True)
    with h5py.File(os.path.join(folder, "out.h5")) as f:
        r = f["requests"][:]
    return max(r["time_to_first_token_s"]) if job == "long" else statistics.mean(r["seconds_per_token"])


def plan(folder, model, job, profile):
    """The layout that is chosen, and seconds of each."""
    p = subprocess.run([SAF, "plan", write_job(folder, model, job, 0, 0), "--profile", profile, "--json"], cwd=ROOT,
                       env=ENV, check=True, stdout=subprocess.PIPE)
    names, seconds = {grid: name for name, grid in LAYOUTS.items()}, {}
    for x in json.loads(p.stdout)["layouts"]:
        name = names.get((x["replicas"], x["pipeline"], x["tensor"]))
        if name and name not in seconds:
            seconds[name] = x["first_token_s"] if job == "long" else x["token_s"]
    return next(iter(seconds)), seconds


def detect(folder):
    """A profile of both hosts, measured now."""
    path = os.path.join(folder, "profile.h5")
    line = ["mpirun"]
    for host in ("h1", "h2"):
        line += ["-np", "1", "--host", host + ":2", *PINNED, SAF, "detect", "--output", path, "--folder", folder,
                 "--quiet", ":"]
    subprocess.run(line[:-1], cwd=ROOT, env=ENV, check=True)
    return path


def inside(rate):
    model = bench_model(os.environ.get("TYPE", "q8_0"))
    with scratch() as folder:
        for job in os.environ.get("JOBS", " ".join(JOBS)).split():
            chosen, plans, got = [], [], {layout: [] for layout in LAYOUTS}
            for _ in range(REPEATS):
                first, planned = plan(folder, model, job, detect(folder))
                chosen.append(first)
                plans.append(planned)
                for layout in LAYOUTS:
                    got[layout].append(measure(folder, model, job, layout))
            median = {layout: statistics.median(times) for layout, times in got.items()}
            planned = {x: statistics.median(p[x] for p in plans) for x in LAYOUTS if all(x in p for p in plans)}
            best = statistics.mode(chosen)
            worse = median[best] / min(median.values()) - 1
            cells = (f"{1e3 * median[x]:.1f} ({1e3 * planned[x]:.1f})" if x in planned else f"{1e3 * median[x]:.1f} (-)"
                     for x in LAYOUTS)
            print(f"| {rate.split(':')[0]} | {job} | " + " | ".join(cells) +
                  f" | {best} ({chosen.count(best)} of {REPEATS}) | {100 * worse:.0f} % |", flush=True)


def main():
    if "HOSTFILE" in os.environ:
        inside(RATES[0])
        return
    hosts = os.path.join(ROOT, "tests", "cluster", "hosts")
    print("| link | job | " + " | ".join(f"{x} ms (plan)" for x in LAYOUTS) + " | chosen | from the best |\n|" + "---|" * 7,
          flush=True)
    for rate in RATES:
        subprocess.run([hosts, "2", "--rate", rate, "--", sys.executable, __file__], check=True,
                       env=dict(os.environ, RATES=rate))


if __name__ == "__main__":
    main()
