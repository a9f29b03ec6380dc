"""saf detect: what it says of this host against /proc, /sys and lscpu, the file it keeps, on one and two ranks,
and its errors."""
import json
import os
import re
import subprocess
import sys
import time

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, PATIENCE, SAF, Tap, saf, scratch  # noqa: E402

tap = Tap()


def read(path, default=""):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read().strip()
    except OSError:
        return default


def cpuinfo(key):
    found = re.search(rf"^{key}\s*:\s*(.*)$", read("/proc/cpuinfo"), re.M)
    return found.group(1) if found else ""


def caches():
    """Of processing unit 0, those of data: bytes by level and type."""
    base, found = "/sys/devices/system/cpu/cpu0/cache", set()
    for name in os.listdir(base) if os.path.isdir(base) else []:
        size = read(f"{base}/{name}/size")
        kind = read(f"{base}/{name}/type").lower()
        if name.startswith("index") and size.endswith("K") and kind != "instruction":
            found.add((int(read(f"{base}/{name}/level")), kind, int(size[:-1]) * 1024))
    return found


def memory_limit():
    """The least limit of the groups of this process and all above, of either version."""
    limits = []
    for line in read("/proc/self/cgroup").splitlines():
        _, kinds, group = line.split(":", 2)
        for mount, file in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/unified", "memory.max"),
                            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
            if ("memory" in kinds.split(",")) != (file == "memory.limit_in_bytes") or (file == "memory.max" and kinds):
                continue
            while True:
                text = read(f"{mount}{group}/{file}")
                if text.isdigit() and int(text) < 1 << 62:
                    limits.append(int(text))
                if group in ("", "/"):
                    break
                group = os.path.dirname(group)
    return min(limits, default=-1)


def facts(got):
    host = got["hosts"][0]
    lscpu = dict(line.split(":", 1) for line in subprocess.run(
        ["lscpu"], stdout=subprocess.PIPE, text=True, env=dict(os.environ, LC_ALL="C")).stdout.splitlines() if ":" in line)
    lscpu = {k.strip(): v.strip() for k, v in lscpu.items()}
    tap.equal(host["processor"], cpuinfo("model name") or host["processor"], "processor, as /proc/cpuinfo has it")
    tap.equal(host["threads"], int(lscpu["CPU(s)"]), "threads, as lscpu counts them")
    if "Socket(s)" in lscpu and lscpu["Socket(s)"].isdigit():
        tap.equal([host["sockets"], host["cores"]],
                  [int(lscpu["Socket(s)"]), int(lscpu["Socket(s)"]) * int(lscpu["Core(s) per socket"])], "sockets and cores")
    total = int(re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo")).group(1)) * 1024
    tap.equal(host["memory_bytes"], total, "memory, as /proc/meminfo has it")
    tap.ok(0 < host["available_bytes"] <= total, "of which some is free")
    tap.equal(host["memory_limit_bytes"], memory_limit(), "the limit of control groups")
    flags = set((cpuinfo("flags") or cpuinfo("Features")).split())
    tap.ok(host["instructions"] and (not flags or set(host["instructions"].split()) - {"none"} <= flags),
           "instruction sets that /proc/cpuinfo has", f"{host['instructions']} {flags}")
    if "avx512f" in flags:
        tap.ok("avx512f" in host["instructions"], "and all that saf knows")
    seen = {(c["level"], c["kind"], c["bytes"]) for c in got["caches"]}
    tap.ok(caches() <= seen, "caches, as /sys has them", f"{caches()} {seen}")
    nodes = [n for n in os.listdir("/sys/devices/system/node") if re.fullmatch(r"node\d+", n)] \
        if os.path.isdir("/sys/devices/system/node") else ["node0"]
    tap.equal(host["nodes"], len(nodes), "NUMA nodes")
    usable = len(os.sched_getaffinity(0))
    tap.ok(1 <= host["usable_cores"] <= usable, "no more cores than processing units that may be used")
    supplies = os.listdir("/sys/class/power_supply") if os.path.isdir("/sys/class/power_supply") else []
    tap.ok(host["power"] in ("mains", "battery", "not known") and (supplies or host["power"] == "not known"), "power")


def rates(got):
    host = got["hosts"][0]
    threads = [r["threads"] for r in got["rates"]]
    expected, n = [], 1
    while n < host["usable_cores"]:
        expected.append(n)
        n *= 2
    tap.equal(threads, expected + [host["usable_cores"]], "1, 2, 4, ... and all cores")
    for r in got["rates"]:
        tap.ok(1e8 < r["copy_bytes_s"] and 1e8 < r["read_bytes_s"] < 1e13 and r["samples"] >= 2, "memory", str(r))
        if PATIENCE > 1:
            tap.skip("smaller numbers go faster", "a sanitizer is between the operations")
        else:
            tap.ok(r["f64_ops_s"] < r["f32_ops_s"] < r["int8_ops_s"], "smaller numbers go faster", str(r))
    tap.ok(host["disk_bytes_s"] > 1e6 and host["disk_bytes"] >= 1 << 22 and host["disk_how"], "the disk", str(host))


def kept(path, got):
    with h5py.File(path) as f:
        tap.equal([f.attrs["profile_schema"], f.attrs["time"], f.attrs["saf_version"]],
                  [1, got["time"], got["saf_version"]], "attributes")
        tap.equal(f["hosts"]["host"].astype(str)[0] if hasattr(f["hosts"]["host"], "astype") else "",
                  got["hosts"][0]["host"], "the host by name")
        tap.equal(float(f["hosts"]["read_bytes_s"][0]), got["hosts"][0]["read_bytes_s"], "its rate")
        tap.ok(all("description" in f[t].attrs and len(f[t].attrs["units"]) == len(f[t].dtype.names) for t in f),
               "every table says what it holds, in which units")
    for words in (("detect",), ("report",)):
        p = saf(*words, path, "--json")
        tap.equal(json.loads(p.stdout) if p.returncode == 0 else p.stderr, got, f"saf {words[0]} FILE --json gives it back")
    p = saf("report", path)
    tap.ok(p.returncode == 0 and got["hosts"][0]["host"] in p.stdout and "read GB/s" in p.stdout, "and as tables", p.stderr)
    p = saf("report", path, "--ranks")
    tap.ok(p.returncode == 2 and "a profile of hosts" in p.stderr, "which have no ranks", p.stderr)


def detect(*words, ranks=0, env=None):
    p = saf("detect", *words, "--json", ranks=ranks, env=env)
    if not tap.ok(p.returncode == 0, f"saf detect {' '.join(words)} on {ranks or 1}", p.stderr):
        return None
    return json.loads(p.stdout)


def errors(folder, path):
    for code, says, words in (
            (2, "unknown or incomplete option", ["--fast"]), (2, "unknown or incomplete option", ["--output"]),
            (2, "nothing is measured", [path, "--output", "x.h5"]), (2, "one profile at a time", [path, path]),
            (66, "nowhere", ["nowhere.h5"]), (65, "no HDF5 file", ["README.md"]), (2, "an empty name", ["--output", ""]),
            (66, "nowhere", ["--folder", "nowhere", "--output", f"{folder}/n.h5"])):
        p = saf("detect", *words)
        tap.ok(p.returncode == code and says in p.stderr, f"refused: {says}", f"{p.returncode} {p.stderr}")
    tap.ok(not os.path.exists(f"{folder}/n.h5"), "and no file is left")
    p = saf("detect", "--output", f"{folder}/none/x.h5", "--quiet")
    tap.equal(p.returncode, 73, "a folder that is missing")
    p = saf("detect", "--quiet", env={"SAF_PROFILES": "", "XDG_CACHE_HOME": "", "HOME": ""})
    tap.ok(p.returncode == 73 and "--output" in p.stderr, "nowhere to keep it", p.stderr)
    damaged = os.path.join(folder, "damaged.h5")
    with h5py.File(path) as old, h5py.File(damaged, "w") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        new.attrs["profile_schema"] = 2
    p = saf("detect", damaged)
    tap.ok(p.returncode == 65 and "a profile of version 2" in p.stderr, "a newer schema", p.stderr)


with scratch() as folder:
    place = {"SAF_PROFILES": os.path.join(folder, "profiles")}
    path = os.path.join(folder, "two.h5")
    got = detect("--folder", folder, env=place)
    if got:
        facts(got)
        rates(got)
        tap.equal([len(got["links"]), got["hosts"][0]["ranks"]], [0, 1], "one host has no links")
        files = os.listdir(place["SAF_PROFILES"])
        tap.equal(files, [f"hosts-{got['hosts_key'][:16]}.h5"], "kept by the names of the hosts")
        kept(os.path.join(place["SAF_PROFILES"], files[0]), got)
        again = detect("--if-stale", env=place)
        tap.equal(again, got, "what is not stale is not measured again")
        tap.equal([f for f in os.listdir(folder) if f.startswith(".saf")], [], "nothing is left in the folder read")
    two = detect("--output", path, "--folder", folder, ranks=2)
    if two:
        tap.equal([len(two["hosts"]), two["hosts"][0]["ranks"]], [1, 2], "two ranks of one host")
        if got:
            tap.equal(two["hosts"][0]["usable_cpus"], got["hosts"][0]["usable_cpus"], "with the same processing units")
            tap.equal(two["hosts_key"], got["hosts_key"], "and the same key")
        with h5py.File(path, "r+") as f:
            f.attrs["time"] = "2020-01-01T00:00:00Z"
        p = saf("detect", path)
        tap.ok(p.returncode == 0 and "is stale" in p.stderr and "days old" in p.stderr, "an old one is said to be stale", p.stderr)
        newer = detect("--if-stale", "--output", path)
        tap.ok(newer and newer["time"] > "2026", "and measured anew")
        errors(folder, path)
    p = saf("detect", "--help")
    tap.ok(p.returncode == 0 and "--if-stale" in p.stdout, "help")


def spins(folder, **given):
    """GOMP_SPINCOUNT of a saf at work, as the kernel has it; None: it has none."""
    env = {k: v for k, v in ENV.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    p = subprocess.Popen([SAF, "detect", "--output", os.path.join(folder, "spins.h5"), "--folder", folder, "--quiet"],
                         env=dict(env, **given), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found, until = None, time.monotonic() + PATIENCE
    while found is None and time.monotonic() < until and p.poll() is None:
        found = re.search(r"(?:^|\0)GOMP_SPINCOUNT=([0-9]+)\0", read(f"/proc/{p.pid}/environ"))
        time.sleep(0.02)
    p.kill()
    p.wait()
    return found and int(found.group(1))


with scratch() as place:
    count = spins(place)
    tap.ok(count and 500 <= count <= 1000000, "threads spin as long as saf has measured", str(count))
    tap.equal(spins(place, GOMP_SPINCOUNT="7"), 7, "or as the user says")
    tap.equal(spins(place, OMP_WAIT_POLICY="passive"), None, "in either way")
tap.exit()
