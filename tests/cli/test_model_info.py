"""saf model info and saf model make, held against a reader of GGUF written from the
specification alone."""
import glob
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from gguf import Reader  # noqa: E402
from saftest import SAF, SHARED, STORIES, Tap, saf, scratch  # noqa: E402

tap = Tap()

def check(path, label):
    run = saf("model", "info", path, "--json", "--tensors", "--keys")
    if not tap.ok(run.returncode == 0, f"{label}: info", run.stderr):
        return None
    info, reader = json.loads(run.stdout), Reader(path)
    tap.equal(info["tensors"], reader.tensors, f"{label}: tensors")
    same = info["keys"].keys() == reader.keys.keys() and all(
        abs(v - reader.keys[k]) <= 1e-12 * abs(v) if isinstance(v, float) else v == reader.keys[k]
        for k, v in info["keys"].items())
    tap.ok(same, f"{label}: keys", f"{info['keys']}\n{reader.keys}")
    sums = {}
    for t in reader.tensors:
        s = sums.setdefault(t["type"], {"tensors": 0, "elements": 0, "bytes": 0})
        s["tensors"] += 1
        s["bytes"] += t["bytes"]
        elements = 1
        for d in t["shape"]:
            elements *= d
        s["elements"] += elements
    tap.equal(info["types"], sums, f"{label}: types")
    tap.equal(info["file_bytes"], os.path.getsize(path), f"{label}: size")
    text = saf("model", "info", path, "--tensors", "--keys")
    tap.ok(text.returncode == 0 and all(t["name"] in text.stdout for t in reader.tensors),
           f"{label}: as text")
    return info


def usage(words, message, code=2):
    run = saf("model", *words)
    tap.ok(run.returncode == code and message in run.stderr, f"{' '.join(words)[:50]}: refused",
           f"exit {run.returncode}: {run.stderr}")


files = sorted(glob.glob(os.path.join(SHARED, "models", "*.gguf")) +
               glob.glob(os.path.join(SHARED, "vocab", "*.gguf")))
if not files:
    tap.skip("more files of other programs", "no ../shared")
for file in [STORIES, *files]:
    got = check(file, os.path.basename(file))
    if got:
        tap.equal(got["supported"], os.path.basename(os.path.dirname(file)) == "models", "whether saf can run it")

with scratch() as folder:
    out = os.path.join(folder, "m.gguf")
    make = ["make", out, "--arch", "qwen2", "--shape", "3:256:4:2:64:512"]
    for kind in ("f32", "f16", "BF16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k",
                 "q5_k", "q6_k"):
        run = saf("model", *make, "--type", kind, "--seed", 7, "--context", 512)
        if not tap.ok(run.returncode == 0, f"{kind} is made", run.stderr):
            continue
        got = check(out, kind)
        shape = [got[k] for k in ("layers", "width", "heads", "kv_heads", "head_width", "ff_width",
                                  "vocab", "context", "qkv_bias", "qk_norm", "tied", "architecture")]
        tap.equal(shape, [3, 256, 4, 2, 64, 512, 257, 512, True, False, False, "qwen2"],
                  f"{kind}: shape")
        tap.equal(sorted(got["types"]), sorted({"F32", kind.upper()}), f"{kind}: types of its tensors")
    usage(make[:2], "--arch and --shape are needed")
    usage(make[:4], "--arch and --shape are needed")
    usage(["make", "--arch", "qwen2"], "the name of the file to write is missing")
    usage([*make, "second.gguf"], "more than one file name")
    usage([*make[:5], "3:256:4:2:64"], "\"3:256:4:2:64\" is not understood")
    usage([*make[:5], "3:256:4:2:64:512:1"], "is not understood")
    usage([*make[:5], "3:256:4:2:64:99999999999999999999"], "is not understood")
    usage([*make[:5], "3:256:4:3:64:512"], "a multiple of the key-value heads")
    usage([*make, "--type", "iq4_xs"], "\"iq4_xs\" is not understood")
    usage([*make, "--seed", "-1"], "\"-1\" is not understood")
    usage([*make, "--tide"], "unknown or incomplete option \"--tide\"")
    usage([*make, "--vocab-size"], "unknown or incomplete option \"--vocab-size\"")
    usage([*make, "--vocab", "no.gguf"], "no.gguf: No such file", 66)
    usage(["make", os.path.join(folder, "no", "m.gguf"), *make[2:]], "No such file", 73)
    usage(["info"], "one model file is needed")
    usage(["info", "--jsn", out], "unknown option \"--jsn\"")
    usage(["info", "no.gguf"], "no.gguf: No such file", 66)
    with open(out, "rb") as f:
        cut = f.read(5000)
    with open(out, "wb") as f:
        f.write(cut)
    usage(["info", out], "but the file ends after", 65)
    tap.equal(sorted(os.listdir(folder)), ["m.gguf"], "nothing else is left behind")

if os.path.exists("/dev/full"):
    run = os.system(f"'{SAF}' model info '{STORIES}' >/dev/full 2>/dev/null") >> 8
    tap.equal(run, 74, "info that cannot be printed is an error")
else:
    tap.skip("info that cannot be printed", "no /dev/full")
tap.exit()
