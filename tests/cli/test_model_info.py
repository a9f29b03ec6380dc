"""saf model info and saf model make, held against a reader of GGUF written here from the
specification alone."""
import glob
import json
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import SAF, SHARED, STORIES, Tap, saf, scratch  # noqa: E402

tap = Tap()
KINDS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
         6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84),
         11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
         14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2)}
ARRAY_NAMES = {4: "u32", 5: "i32", 6: "f32", 8: "string"}


class Reader:
    def __init__(self, path):
        self.file = open(path, "rb")
        assert self.file.read(4) == b"GGUF"
        self.version, tensors, keys = self.take("IQQ")
        self.keys = dict(self.key() for _ in range(keys))
        infos = [self.info() for _ in range(tensors)]
        align = self.keys.get("general.alignment", 32)
        data = -(-self.file.tell() // align) * align
        self.tensors = [dict(t, offset=t["offset"] + data) for t in infos]

    def take(self, form):
        got = struct.unpack("<" + form, self.file.read(struct.calcsize("<" + form)))
        return got[0] if len(got) == 1 else got

    def text(self):
        return self.file.read(self.take("Q"))

    def value(self, kind):
        if kind == 8:
            return self.text().decode("utf-8", "replace")
        if kind != 9:
            return self.take(KINDS[kind])
        element, n = self.take("IQ")
        for _ in range(n):
            self.value(element)
        return {"array_of": ARRAY_NAMES[element], "length": n}

    def key(self):
        name = self.text().decode()
        return name, self.value(self.take("I"))

    def info(self):
        name = self.text().decode()
        shape = [self.take("Q") for _ in range(self.take("I"))]
        kind, offset = self.take("IQ")
        label, block, size = TYPES[kind]
        elements = 1
        for d in shape:
            elements *= d
        return {"name": name, "type": label, "shape": shape, "bytes": elements // block * size,
                "part": 1, "offset": offset}


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
