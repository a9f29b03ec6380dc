"""Are plans right beyond this machine? `make bench-sim` (by CASES, parts of names with ; between; half an hour; see tests/sim/sim.h)

Each case is planned by `saf plan` on hosts that do not exist, and its best layout is run on a simulation of them:
saf's own engine, with messages by SimGrid's SMPI and the plan's seconds in place of computing. So what is compared
is how flights follow and wait for each other, and what links carry; how fast a host computes is tested elsewhere
(bench-plan). Within 10 % at 8 and 64 ranks and 20 % at 512 is right.
"""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, job_file, scratch  # noqa: E402

MODELS = {  # layers, width, heads, key heads, head width, feed-forward
    "deep": "512:4096:32:8:128:14336",
    "wide": "80:8192:64:8:128:28672",
    "many": "2:16384:512:64:32:53248",
}
LINKS = {"1G": (1, 50), "10G": (10, 25), "100G": (100, 3)}  # Gbit/s, microseconds
HOST = dict(memory_gb=256.0, bandwidth_gbs=200.0, gflops=3000.0, int8_gops=12000.0, cores=48)
WITHIN = {8: 0.10, 64: 0.10, 512: 0.20}


def header(folder, name):
    path = os.path.join(folder, f"{name}.gguf")
    if not os.path.exists(path):
        subprocess.run([SAF, "model", "make", path, "--header", "--arch", "llama", "--shape", MODELS[name], "--vocab-size", "128256",
                        "--type", "q8_0", "--context", "8192"], check=True, stdout=subprocess.DEVNULL)
    return path


def cluster(folder, count, link, ranks=1):
    gbit, us = LINKS[link]
    keys = dict(HOST, count=count, ranks=ranks, link_gbit=float(gbit), latency_us=float(us))
    return job_file(folder, "hosts = ( {" + "".join(f"{k} = {json.dumps(v)};" for k, v in keys.items()) + "} );", "cluster.cfg")


def job(folder, model, requests, prompt, tokens):
    with open(os.path.join(folder, "ids.txt"), "w", encoding="utf-8") as f:
        for i in range(requests):
            f.write(" ".join(str((7919 * k + 31 * i) % 50000 + 256) for k in range(prompt)) + "\n")
    return job_file(folder, f'job = "generate"; model: {{ path = "{model}"; }}; input: {{ tokens = "{folder}/ids.txt"; }};'
                    f'generate: {{ max_tokens = {tokens}; }}; output: {{ file = "{folder}/out.h5"; }};')


def made_plan(folder, case):
    model = header(folder, case["model"])
    text = job(folder, model, case["requests"], case["prompt"], case["tokens"])
    r, s, t = case["layout"]
    p = subprocess.run([SAF, "plan", text, f"layout.replicas={r}", f"layout.pipeline={s}", f"layout.tensor={t}", *case.get("keys", ()),
                        "--cluster", cluster(folder, case["hosts"], case["link"], case.get("per_host", 1)), "--json"],
                       cwd=ROOT, env=ENV, check=True, stdout=subprocess.PIPE)
    return model, json.loads(p.stdout)


def words(plan, layout):
    """What the simulation is told of the hosts and of a layout."""
    hosts = plan["hosts"]
    keys = {"count": "count", "cores": "cores", "read": "read_bytes_s", "int8": "int8_ops_s", "f32": "f32_ops_s", "tiles": "tiles",
            "link": "link_bytes_s", "latency": "latency_s"}
    out = {k: ",".join(repr(float(h[name])) for h in hosts) for k, name in keys.items()}
    out.update(classes=len(hosts))
    out.update({k: layout[k] for k in ("ranks", "ranks_per_host", "replicas", "pipeline", "tensor", "sequences", "micro_batch", "chunk")})
    out["stages"] = ",".join(str(n) for n in layout["stages"])
    return out


def simulate(folder, program, told):
    line = [os.path.join(os.path.dirname(SAF), program), f"folder={folder}", *(f"{k}={v}" for k, v in told.items())]
    p = subprocess.run(line, stdout=subprocess.PIPE, check=False)
    if p.returncode != 0:
        raise SystemExit(f"exit {p.returncode}: {' '.join(line)}")
    return json.loads(p.stdout)


CASES = {}


def add(name, **case):
    CASES[name] = case


for n, link, hosts in ((8, "1G", 8), (64, "10G", 64), (512, "100G", 32)):
    pipeline, split = {"model": "deep", "hosts": n, "layout": (1, n, 1)}, {"model": "many", "hosts": hosts, "layout": (1, 1, n)}
    add(f"pipeline {n}, prompt", **pipeline, link=link, requests=1, prompt=4096, tokens=1, what="first_token_s")
    add(f"pipeline {n}, decode", **pipeline, link=link, requests=2 * n, prompt=16, tokens=16 if n < 512 else 4,
        what="token_s", keys=[f"run.sequences={2 * n}"])
    add(f"tensor {n}, prompt", **split, link=link, per_host=n // hosts, requests=1, prompt=128, tokens=1, what="first_token_s")
    add(f"tensor {n}, decode", **split, link=link, per_host=n // hosts, requests=1, prompt=16, tokens=4, what="token_s")
    if hosts < 64:  # more than ten minutes there
        add(f"tensor {n}, decode of 8", **split, link=link, per_host=n // hosts, requests=8, prompt=16, tokens=4, what="token_s")


for n, hosts, link, gflops, k in ((8, 8, "10G", 1500, 16384), (64, 64, "10G", 1500, 16384), (512, 32, "100G", 3000, 32768)):
    add(f"product {n}", product=(k, k, k), hosts=hosts, per_host=n // hosts, link=link, gflops=gflops, what="plan_s")
add("product 8, long k", product=(1024, 1024, 400000), hosts=8, link="10G", gflops=1500, what="plan_s")
add("product 64, long k", product=(2048, 2048, 400000), hosts=64, link="10G", gflops=1500, what="plan_s")


def flights(folder, case):
    """Planned and simulated seconds of a case, and ranks."""
    model, plan = made_plan(folder, case)
    best = plan["layouts"][0]
    told = words(plan, best)
    told.update(model=model, requests=case["requests"], prompt=case["prompt"], tokens=case["tokens"])
    got = simulate(folder, "sim-flights", told)
    return best[case["what"]], got[case["what"]], best["ranks"]


def product(folder, case):
    gbit, us = LINKS[case["link"]]
    per_host = case.get("per_host", 1)
    told = dict(classes=1, ranks=case["hosts"] * per_host, ranks_per_host=per_host, count=case["hosts"], cores=per_host, read=1e11,
                int8=1e12, f32=1e9 * case["gflops"], tiles=0, link=gbit * 1.25e8, latency=us * 1e-6,
                **dict(zip("mnk", case["product"])))
    got = simulate(folder, "sim-product", told)
    return got["plan_s"], got["sim_s"], told["ranks"]


def main():
    wanted, wrong = os.environ.get("CASES"), 0
    print("| case | hosts | link | plan | simulation | off by |\n|---|---|---|---|---|---|")
    with scratch() as folder:
        for name, case in CASES.items():
            if wanted and not any(part in name for part in wanted.split(";")):
                continue
            start = time.monotonic()
            planned, got, ranks = (product if "product" in case else flights)(folder, case)
            off = planned / got - 1
            far = abs(off) > WITHIN[ranks]
            wrong += far
            print(f"| {name} | {case['hosts']} | {case['link']} | {planned:.4g} s | {got:.4g} s | {100 * off:+.1f} %{', too far' if far else ''} |",
                  flush=True)
            print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.exit(f"{wrong} too far off" if wrong else 0)


if __name__ == "__main__":
    main()
