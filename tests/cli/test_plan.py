"""saf plan: models of 0.6 and 400 billion parameters that are headers alone, on hosts that do not exist;
what it says against counts made here, which choice it makes as links and memory change, and its errors."""
import json
import os
import resource
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from profiles import invent  # noqa: E402
from saftest import STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
# of the processor, whatever else runs; more where the compiler checks what the program does
LIMIT_S = 5 if os.environ.get("BUILD", "build") == "build" else 50
HUGE = ["--arch", "llama", "--shape", "126:16384:128:8:128:53248", "--vocab-size", "128256"]
SMALL = ["--arch", "qwen3", "--shape", "28:1024:16:8:128:3072", "--vocab-size", "151936"]


def spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def header(folder, name, words):
    path = os.path.join(folder, name)
    p = saf("model", "make", path, "--header", *words)
    tap.ok(p.returncode == 0, f"{name}: a header alone", p.stderr)
    return path


def host(**keys):
    values = dict(memory_gb=512.0, bandwidth_gbs=300.0, gflops=4000.0, int8_gops=16000.0, cores=64, link_gbit=25.0,
                  latency_us=15.0)
    values.update(keys)
    return "{" + "".join(f"{k} = {json.dumps(v)};" for k, v in values.items()) + "}"


def cluster(folder, *hosts):
    return job_file(folder, "hosts = (" + ",".join(hosts) + ");", "cluster.cfg")


def job(folder, model, requests=8, prompt=64, tokens=64):
    with open(os.path.join(folder, "ids.txt"), "w", encoding="utf-8") as f:
        for i in range(requests):
            f.write(" ".join(str(65 + (i + k) % 26) for k in range(prompt)) + "\n")
    return job_file(folder, f'job = "generate"; model: {{ path = "{model}"; }}; input: {{ tokens = "{folder}/ids.txt"; }};'
                    f'generate: {{ max_tokens = {tokens}; }}; output: {{ file = "{folder}/out.h5"; }};')


def plan(name, *words, code=0):
    p = saf("plan", *words, "--json")
    if not tap.ok(p.returncode == code, f"{name}: exit {code}", f"{p.returncode} {p.stderr}"):
        return {}
    return json.loads(p.stdout)


def grid(layout):
    return [layout["replicas"], layout["pipeline"], layout["tensor"]]


def counts(folder):
    """Bytes and operations of the 0.6 billion shape, counted here: Q8_0 has 34 bytes for 32 weights."""
    L, D, H, HKV, C, F, V = 28, 1024, 16, 8, 128, 3072, 151936
    matrices = (H * C + 2 * HKV * C) * D + H * C * D + 3 * F * D
    layer = matrices * 34 / 32 + (2 * D + 2 * C) * 4
    got = plan("0.6 billion", job(folder, header(folder, "small.gguf", SMALL)), "--cluster", cluster(folder, host()))
    if not got:
        return
    model = got["model"]
    tap.equal([len(model["layers"]), model["layers"][3]["bytes"], model["layers"][3]["int8_ops"]],
              [L, layer, 2 * matrices], "bytes and operations of a layer")
    tap.equal([model["head"]["bytes"], model["head"]["int8_ops"]], [V * D * 34 / 32 + D * 4, 2 * V * D], "of the head")
    tap.equal(model["kv_bytes_per_position"], L * 2 * HKV * C * 2, "cache bytes of a position")
    tap.equal(model["pipeline_bytes_per_row"], 4 * D, "a row between stages")
    tap.equal(model["tensor_bytes_per_row_and_layer"], 8 * D + (H * C + F) * 44 / 32, "a row of a tensor split")
    tap.equal(got["work"], {"requests": 8, "prompt_tokens": 64, "completion_tokens": 64, "longest": 128}, "the requests")
    first = got["layouts"][0]
    whole = L * model["layers"][0]["packed_bytes"] + 2 * V * D * 34 / 32
    tap.ok(0 <= first["weight_bytes"] - whole < 1e5, "weights of one rank", f"{first['weight_bytes']} {whole}")
    tap.equal(first["cache_bytes"], 8 * 256 * L * 2 * HKV * C * 2, "caches: 8 sequences, positions by segments")


def what_fits(folder):
    model = header(folder, "huge.gguf", HUGE)
    size = os.stat(model)
    tap.ok(size.st_size > 400e9 and size.st_blocks * 512 < 10e6, "431 GB that take no room", str(size))
    with open(model, "rb") as f:
        tap.equal(struct.unpack("<4sI", f.read(8)), (b"GGUF", 3), "a GGUF file")
    text = job(folder, model)
    two = plan("2 x 512 GB", text, "--cluster", cluster(folder, host(count=2)))
    one = [x for x in two["layouts"] if x["hosts"] == 1]
    tap.ok(two["layouts"][0]["fits"] and one and one[0]["fits"], "each of two hosts of 512 GB is enough", str(two["layouts"]))
    eight = plan("8 x 128 GB", text, "--cluster", cluster(folder, host(count=8, memory_gb=128.0)))
    tap.ok(eight["layouts"][0]["fits"], "eight hosts of 128 GB are enough")
    tap.ok("does not fit on fewer than 4 hosts: short of" in eight["why"], "which is said", eight["why"])
    three = plan("3 x 128 GB", text, "--cluster", cluster(folder, host(count=3, memory_gb=128.0)), code=1)
    tap.ok(not three["layouts"][0]["fits"] and three["why"].startswith("does not fit:"), "three are not", three["why"])
    tap.ok(three["layouts"][0]["short_bytes"] > 1e10, "and lack tens of GB")
    p = saf("plan", text, "--cluster", cluster(folder, host(count=3, memory_gb=128.0)))
    tap.ok(p.returncode == 1 and "why        does not fit:" in p.stdout and "GB short" in p.stdout, "as text", p.stdout)
    many_s = spent()
    many = plan("1,000 hosts", text, "--cluster",
                cluster(folder, host(count=500), host(count=300, memory_gb=256.0, bandwidth_gbs=150.0),
                        host(count=200, memory_gb=64.0, gflops=500.0)))
    many_s = spent() - many_s
    tap.ok(many_s < LIMIT_S, f"within {LIMIT_S} seconds", f"{many_s} s")
    tap.ok(many["layouts"][0]["fits"] and many["looked_at"] > 100, "of many layouts one that fits")
    big = plan("10,000 hosts", text, "--cluster", cluster(folder, host(count=10000)))
    tap.ok(big["layouts"][0]["fits"], "fit")
    for i, x in enumerate(many["layouts"]):
        tap.equal(sum(x["stages"]), 126, f"layout {i}: all layers")


def what_pays(folder):
    """One sequence of 0.6 billion parameters: several hosts only where the link is fast."""
    model = os.path.join(folder, "small.gguf")
    text = job(folder, model, requests=1, prompt=8, tokens=64)
    slow = plan("100 Mbit/s", text, "--cluster",
                cluster(folder, host(count=2, bandwidth_gbs=15.0, gflops=200.0, int8_gops=800.0, link_gbit=0.1, latency_us=200.0)))
    tap.equal(grid(slow["layouts"][0]), [1, 1, 1], "one sequence over a slow link: one host")
    tap.ok("one host alone is" in slow["why"], "and why", slow["why"])
    tap.ok(len(slow["rules"]) == 2 and all("this plan says" in r for r in slow["rules"]), "rules are shown", slow["rules"])
    fast = plan("100 Gbit/s", text, "--cluster",
                cluster(folder, host(count=2, bandwidth_gbs=15.0, gflops=200.0, int8_gops=800.0, link_gbit=100.0, latency_us=3.0)))
    tap.equal(grid(fast["layouts"][0]), [1, 1, 2], "over a fast one: a tensor split")
    tap.ok("2 hosts are" in fast["why"], "and why", fast["why"])
    batch = job(folder, model, requests=16, prompt=8, tokens=64)
    got = plan("16 sequences", batch, "--cluster",
               cluster(folder, host(count=2, bandwidth_gbs=15.0, gflops=200.0, int8_gops=800.0, link_gbit=0.1, latency_us=200.0)))
    tap.equal(got["layouts"][0]["hosts"], 2, "16 sequences take both hosts over a slow link as well")
    tap.equal(got["layouts"][0]["tensor"], 1, "without splitting layers")
    kept = plan("as asked", batch, "layout.pipeline=2", "run.sequences=4", "--cluster", cluster(folder, host(count=2)))
    tap.ok(all(x["pipeline"] == 2 and x["sequences"] <= 4 for x in kept["layouts"]), "a job's own numbers are kept")


def here(folder):
    text = job_file(folder, f'job = "generate"; model: {{ path = "{STORIES}"; }}; input: {{ prompts = "jobs/data/demo.txt"; }};')
    got = plan("this host", text, "--ranks", "2")
    tap.ok(got["measured"] and got["hosts"][0]["read_bytes_s"] > 1e8, "measured")
    tap.ok(got["layouts"][0]["fits"] and max(x["ranks"] for x in got["layouts"]) == 2, "layouts of one and two ranks")
    tap.ok(not os.path.exists(os.path.join(folder, "results")), "nothing is written")
    hosts = job_file(folder, "a slots=2\nb slots=2\nc slots=1\n", "three.hosts")
    got = plan("a hostfile", text, "--hosts", hosts, "--link", "10", "--latency", "20")
    tap.equal([[h["count"], h["ranks"], h["link_bytes_s"]] for h in got["hosts"]], [[2, 2, 1.25e9], [1, 1, 1.25e9]],
              "classes of slots, and the link")
    p = saf("plan", "jobs/bench-model.cfg", "--cluster", "jobs/clusters/office.cfg")
    tap.ok(p.returncode == 0 and "to run it" in p.stdout, "a bench job's shape needs no model", p.stderr)
    for name in ("two-big", "eight-small", "thousand"):
        p = saf("plan", text, "--cluster", f"jobs/clusters/{name}.cfg")
        tap.ok(p.returncode == 0, f"jobs/clusters/{name}.cfg", p.stderr)


def refused(folder, text, code, says, *words):
    p = saf("plan", text, *words)
    tap.ok(p.returncode == code and says in p.stderr, f"refused: {says}", f"{p.returncode} {p.stderr}{p.stdout}")


def by_hand(folder):
    text = job(folder, os.path.join(folder, "small.gguf"))
    two = cluster(folder, host(count=2))
    got = plan("stages by hand", text, "layout.stages=[20,8]", "--cluster", two)
    tap.ok(got["layouts"] and all(x["stages"] == [20, 8] for x in got["layouts"]), "are kept", str(got["layouts"]))
    got = plan("shares by hand", text, "layout.share=[3,1]", "layout.pipeline=2", "--cluster", two)
    first = got["layouts"][0]
    tap.ok(sum(first["stages"]) == 28 and first["stages"][0] >= 2.5 * first["stages"][1], "are kept", str(first["stages"]))
    even = plan("even shares", text, "layout.share=[1,1]", "layout.pipeline=2", "--cluster", two)["layouts"][0]
    free = plan("no shares", text, "layout.pipeline=2", "--cluster", two)["layouts"][0]
    tap.equal(even["stages"], free["stages"], "even ones cut as none")
    tap.ok(abs(even["job_s"] / free["job_s"] - 1) < 1e-6, "and take as long", f"{even['job_s']} {free['job_s']}")
    last = plan("most on the second", text, "layout.share=[1,3]", "layout.pipeline=2", "--cluster", two)["layouts"][0]
    tap.ok(last["job_s"] > even["job_s"], "takes longer: it has the head as well", f"{last['job_s']} {even['job_s']}")
    unlike = cluster(folder, host(), host(bandwidth_gbs=100.0, gflops=1300.0, int8_gops=5300.0))
    fair = plan("shares of unlike hosts", text, "layout.share=[3,1]", "layout.pipeline=2", "--cluster", unlike)["layouts"][0]
    same = plan("the same for both", text, "layout.share=[1,1]", "layout.pipeline=2", "--cluster", unlike)["layouts"][0]
    tap.ok(fair["job_s"] < same["job_s"], "pay", f"{fair['job_s']} {same['job_s']}")
    least = cluster(folder, "{ memory_gb = 10.0; bandwidth_gbs = 20.0; gflops = 100.0; }")
    got = plan("a host of three figures", text, "--cluster", least)["hosts"][0]
    usual = [got[k] for k in ("int8_ops_s", "reserve_bytes", "link_bytes_s", "latency_s")]
    tap.ok(all(abs(x / y - 1) < 1e-9 for x, y in zip(usual, (4e11, 1e9, 1.25e8, 5e-5))), "has the usual ones", str(usual))
    refused(folder, text, 2, "add up to 27 layers", "layout.stages=[20,7]", "--cluster", two)
    refused(folder, text, 2, "layout.share has 3 entries", "layout.share=[1,1,1]", "--cluster", two)


def interleaved(folder):
    """Shares go to ranks in the order in which hosts are given, also where hosts that are alike have others between them:
    as with a cluster file that names each host."""
    text = job(folder, os.path.join(folder, "small.gguf"))
    shares = ["layout.share=[1,1,10,1,1]", "layout.pipeline=5", "run.sequences=4"]

    def both(name, given, keys, order):
        one = plan(f"{name}, as a cluster file", text, *shares, "--cluster", cluster(folder, *(host(**keys[x]) for x in order)))
        return given and given["layouts"][0], one and one["layouts"][0]

    hosts = job_file(folder, "a slots=2\nb slots=1\nc slots=2\n", "three.hosts")
    got = plan("unlike slots", text, *shares, "--hosts", hosts)
    cores = got["hosts"][0]["cores"] if got else 1
    keys = {x: dict(ranks=n, cores=cores) for x, n in (("a", 2), ("b", 1), ("c", 2))}
    mine, same = both("a b c", got, keys, "abc")
    other = both("a c b", got, keys, "acb")[1]
    tap.equal([mine["stages"], mine["host_bytes"]], [same["stages"], same["host_bytes"]], "each host has its share")
    tap.ok(other["host_bytes"] > 1.02 * mine["host_bytes"], "class by class another would", f"{other['host_bytes']} {mine['host_bytes']}")
    here = os.path.join(folder, "order.h5")
    p = saf("detect", "--output", here, "--folder", folder, "--quiet")
    if not tap.ok(p.returncode == 0, "this host's profile", p.stderr):
        return
    usual = dict(usable_cores=64, memory_bytes=512 * 10 ** 9, memory_limit_bytes=-1, read_bytes_s=15e9, int8_ops_s=800e9,
                 f32_ops_s=200e9, tile_ops_s=float("nan"), product_share=0.66, hidden_share=0.8, core_read_bytes_s=4e9)
    figures = dict(memory_gb=512.0, bandwidth_gbs=15.0, gflops=200.0, int8_gops=800.0, product_share=0.66, hidden_share=0.8, core_bandwidth_gbs=4.0, cores=64, link_gbit=1.0, latency_us=50.0)
    keys = {"a": dict(figures, ranks=2), "b": dict(figures, ranks=1, bandwidth_gbs=60.0), "c": dict(figures, ranks=2)}
    three = invent(here, os.path.join(folder, "order3.h5"),
                   [dict(usual, host=b"a", ranks=2), dict(usual, host=b"b", ranks=1, read_bytes_s=60e9), dict(usual, host=b"c", ranks=2)])
    seen = []
    for order in ("abc", "bca"):
        lines = "".join(f"{x} slots={keys[x]['ranks']}\n" for x in order)
        words = ["--hosts", job_file(folder, lines, "order.hosts")] if order != "abc" else []
        mine, same = both(order, plan(f"a profile, {order}", text, *shares, "--profile", three, *words), keys, order)
        tap.ok(abs(mine["job_s"] / same["job_s"] - 1) < 1e-9, "takes as long", f"{mine['job_s']} {same['job_s']}")
        seen.append(mine["job_s"])
    tap.ok(abs(seen[0] / seen[1] - 1) > 0.05, "the order counts", str(seen))


def profiles(folder):
    """A plan from a profile is that of a cluster file with the same figures."""
    text = job(folder, os.path.join(folder, "small.gguf"), requests=1, prompt=8, tokens=64)
    measured = os.path.join(folder, "here.h5")
    p = saf("detect", "--output", measured, "--folder", folder, "--quiet")
    if not tap.ok(p.returncode == 0, "this host's profile", p.stderr):
        return
    here = plan("this host's profile", text, "--profile", measured)
    tap.ok(here["layouts"][0]["fits"] and not here["measured"], "a plan, with nothing measured anew")
    big = dict(ranks=1, usable_cores=64, memory_bytes=512 * 10 ** 9, memory_limit_bytes=-1, read_bytes_s=15e9,
               int8_ops_s=800e9, f32_ops_s=200e9, tile_ops_s=float("nan"), product_share=0.66, hidden_share=0.8, core_read_bytes_s=4e9)
    keys = dict(memory_gb=512.0, bandwidth_gbs=15.0, gflops=200.0, int8_gops=800.0, product_share=0.66, hidden_share=0.8,
                core_bandwidth_gbs=4.0, cores=64)
    for gbit, us, expected in ((0.1, 200.0, [1, 1, 1]), (100.0, 3.0, [1, 1, 2])):
        two = invent(measured, os.path.join(folder, "two.h5"), [dict(big, host=b"a.x"), dict(big, host=b"b.x", read_bytes_s=15.2e9)],
                     [("a.x", "b.x", gbit, us)])
        got = plan(f"two hosts and {gbit} Gbit/s", text, "--profile", two)
        same = plan("as a cluster file", text, "--cluster", cluster(folder, host(count=2, link_gbit=gbit, latency_us=us, **keys)))
        tap.equal(grid(got["layouts"][0]), expected, "their best layout")
        tap.ok(len(got["hosts"]) == 1 and got["hosts"][0]["count"] == 2, "they are taken for one kind", str(got["hosts"]))
        off = got["layouts"][0]["job_s"] / same["layouts"][0]["job_s"]
        tap.ok(0.98 < off < 1.02, "and it takes as long", str(off))
    three = invent(measured, os.path.join(folder, "three.h5"),
                   [dict(big, host=b"a.x"), dict(big, host=b"b.x", memory_limit_bytes=10 ** 9), dict(big, host=b"c.x", f32_ops_s=50e9)])
    got = plan("unlike hosts", text, "--profile", three)
    tap.equal(sorted(h["memory_bytes"] for h in got["hosts"]), [1e9, 512e9, 512e9], "three kinds; a limit counts")
    shared = dict(big, machine=0, together_read_bytes_s=8e9)
    mixed = invent(measured, os.path.join(folder, "mixed.h5"),
                   [dict(shared, host=b"a"), dict(shared, host=b"b", together_read_bytes_s=8.4e9), dict(big, host=b"c")])
    got = {h["name"]: [h["count"], h.get("machine_hosts"), h.get("machine_read_bytes_s")]
           for h in plan("two of three are one machine", text, "--profile", mixed)["hosts"]}
    tap.equal(got, {"a": [2, 2, 16.4e9], "c": [1, None, None]}, "they read its memory together")
    named = job_file(folder, "b\nc\n", "mixed.hosts")
    got = plan("one of the two", text, "--profile", mixed, "--hosts", named)["hosts"]
    tap.ok(all("machine_hosts" not in h for h in got), "has it for itself", str(got))
    linked = invent(measured, os.path.join(folder, "linked.h5"), [dict(big, host=x) for x in (b"a", b"b", b"c", b"alone")],
                    [("a", "b", 1, 10, 20), ("c", "a", 20, 30, 50), ("b", "c", 10, 80)])
    got = {h["name"]: [h["link_bytes_s"] * 8e-9, h["latency_s"] * 1e6, h.get("short_message_s", 0) * 1e6] for h in plan("links", text, "--profile", linked)["hosts"]}
    expected = {"a": [10.5, 20, 35], "b": [5.5, 45, 0], "c": [15, 55, 0], "alone": [1, 50, 0]}
    tap.ok(got.keys() == expected.keys() and all(abs(x - y) < 1e-9 for k in got for x, y in zip(got[k], expected[k])),
           "each host's link is the median of its links", str(got))
    hosts = job_file(folder, "me@A slots=2\nc.x\n", "two.hosts")
    got = plan("those of a hostfile", text, "--profile", three, "--hosts", hosts)
    tap.equal(sorted([h["name"], h["ranks"]] for h in got["hosts"]), [["a.x", 2], ["c.x", 1]], "with its slots")
    other = job_file(folder, "a\nd\n", "other.hosts")
    refused(folder, text, 65, "other.hosts:2: d is not in the profile", "--profile", three, "--hosts", other)
    refused(folder, text, 2, "a profile says", "--profile", three, "--link", "1")
    refused(folder, text, 66, "nowhere.h5", "--profile", "nowhere.h5")
    refused(folder, text, 65, "no HDF5 file", "--profile", text)
    old = invent(measured, os.path.join(folder, "old.h5"), [dict(big, host=b"a")], time="2020-01-01T00:00:00Z")
    p = saf("plan", text, "--profile", old)
    tap.ok(p.returncode == 0 and "is stale" in p.stderr and "saf detect" in p.stderr, "a stale one is said to be", p.stderr)


def errors(folder):
    text = job(folder, os.path.join(folder, "small.gguf"))
    with_cluster = [
        ("hosts = ();", "expected a list"), ("hosts = 3;", "expected a list"), ("host = ();", "unknown key"),
        ("hosts = ( { memory_gb = 1.0; } );", "is missing"), ("hosts = ( 1 );", "expected hosts as groups"),
        ("hosts = ( " + host(count=0) + ");", "expected an integer from 1"),
        ("hosts = ( " + host(count=2.5) + ");", "expected an integer from 1"),
        ("hosts = ( " + host(memory_gb=-1.0) + ");", "expected a number from"),
        ("hosts = ( " + host(name="") + ");", "expected a name"), ("hosts = ( " + host(tiles=1) + ");", "true or false"),
        ("hosts = ( " + host(memory_gb=8.0, reserve_gb=8.0) + ");", "nothing is left"),
        ("hosts = ( " + host(speed=1) + ");", 'unknown key "speed"'), ("hosts = ( {", "cluster.cfg:"),
        ("hosts = ( " + ",".join([host(count=60000)] * 2) + ");", "hosts, expected at most"),
    ]
    for body, says in with_cluster:
        refused(folder, text, 2, says, "--cluster", job_file(folder, body, "cluster.cfg"))
    good = cluster(folder, host(count=2))
    refused(folder, text, 2, "no layout of", "--cluster", good, "layout.tensor=3")
    no_model = job_file(folder, f'job = "bench"; bench: {{ suites = ["comm"]; }}; output: {{ file = "{folder}/x.h5"; }};', "b.cfg")
    refused(folder, no_model, 2, "a job without a model", "--cluster", good)
    refused(folder, text, 2, "is not understood", "--cluster", good, "--ranks", "two")
    refused(folder, text, 2, "a cluster file says all", "--cluster", good, "--hosts", "x")
    refused(folder, text, 2, "unknown or incomplete option", "--fast")
    refused(folder, text, 66, "nowhere.cfg", "--cluster", "nowhere.cfg")
    refused(folder, text, 66, "nowhere.hosts", "--hosts", "nowhere.hosts")
    refused(folder, text, 66, "nowhere.gguf", "model.path=nowhere.gguf", "--cluster", good)


with scratch() as folder:
    counts(folder)
    what_fits(folder)
    what_pays(folder)
    here(folder)
    by_hand(folder)
    interleaved(folder)
    profiles(folder)
    errors(folder)
    p = saf("plan", "--help")
    tap.ok(p.returncode == 0 and "--cluster FILE" in p.stdout, "help")
    p = saf("--help")
    tap.ok("saf plan" in p.stdout, "saf --help names it")
tap.exit()
