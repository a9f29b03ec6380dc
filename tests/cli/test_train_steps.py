"""Gradients of every parameter against central differences, and steps against NumPy, in float64.

The model is written down here once more, from the published formulas: RMS norm, rotary positions,
grouped queries, SwiGLU, cross entropy; and its backward pass by hand, so that steps can be followed
without the error of differences."""
import ctypes
import os
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from saftest import ROOT, Tap

# Memory of arrays is kept: asking the system for new pages all the time takes half as long as the arithmetic.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
for setting, most in (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28), (M_MMAP_THRESHOLD, 2**25):
    ctypes.CDLL(None).mallopt(setting, most)
PROGRAM = os.path.join(ROOT, os.environ.get("BUILD", "build"), "tests", "train_steps")
LAYERS, HEADS, KV_HEADS, HEAD_WIDTH, EPS, BASE = 2, 4, 2, 6, 1e-5, 10000.0
BETA1, BETA2, EPSILON, DECAY, CLIP = 0.9, 0.95, 1e-8, 0.1, 0.5
# Gradients of f32 have noise of some 1e-8 here: what is smaller than this is compared absolutely.
FLOOR = 2e-6


class Run:
    """What train_steps wrote of one training."""

    def __init__(self, folder, arch, tied, steps, context):
        out = subprocess.run([PROGRAM, folder, arch, "tied" if tied else "untied", str(steps), str(context)],
                             check=True, stdout=subprocess.PIPE, text=True).stdout
        self.folder, self.arch, self.tied, self.context = folder, arch, tied, context
        self.tensors, self.reports = {}, []
        for line in out.splitlines():
            words = line.split()
            if words[0] == "tensor":
                cols, rows, at = map(int, words[2:])
                self.tensors[words[1]] = ((rows, cols) if rows else (cols,), at)
            else:
                self.reports.append([float(w) for w in words[1:]])

    def values(self, name, step):
        return np.fromfile(os.path.join(self.folder, f"{name}{step}"), np.float32).astype(np.float64)

    def named(self, flat):
        return {name: flat[at:at + int(np.prod(shape))].reshape(shape) for name, (shape, at) in self.tensors.items()}

    def tokens(self, step):
        ids = np.fromfile(os.path.join(self.folder, f"ids{step}"), np.int32).reshape(-1, self.context + 1)
        counted = np.fromfile(os.path.join(self.folder, f"counted{step}"), np.int64)
        return ids, np.arange(self.context)[None, :] < counted[:, None]


def norm(x, w):
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
    return x * r * w, r


def angles(context):
    f = BASE ** (-2 * np.arange(HEAD_WIDTH // 2) / HEAD_WIDTH)
    a = np.arange(context)[:, None] * f
    return np.cos(a)[:, None, :], np.sin(a)[:, None, :]  # [T, 1, C/2]


def rotate(x, arch, back=False):
    """x[..., S, T, heads, C]"""
    cos, sin = angles(x.shape[-3])
    sin = -sin if back else sin
    y = np.empty_like(x)
    first, second = (slice(0, None, 2), slice(1, None, 2)) if arch == "llama" else \
        (slice(0, HEAD_WIDTH // 2), slice(HEAD_WIDTH // 2, None))
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y


def heads_first(x):
    return np.swapaxes(x, -2, -3)  # [..., S, heads, T, C]


def mul(x, w):
    """x[..., S, T, K] with w[..., R, K], which may have copies in front."""
    return x @ np.swapaxes(w, -1, -2)[..., None, :, :]


def vector(w):
    """A norm's weights, which may have copies in front of them, against [..., S, T, D]."""
    return w[..., None, None, :]


def forward(p, arch, tied, ids, mask, keep=None):
    """Mean loss; p[name] may have a leading axis of perturbed copies, and so has the result then."""
    seqs, context = mask.shape
    x = p["token_embd.weight"][..., ids[:, :-1], :]
    causal = np.tril(np.ones((context, context), bool))
    for i in range(LAYERS):
        w = {k: p[f"blk.{i}.{k}.weight"] for k in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm",
                                                   "ffn_gate", "ffn_up", "ffn_down")}
        a, ra = norm(x, vector(w["attn_norm"]))
        q, k, v = mul(a, w["attn_q"]), mul(a, w["attn_k"]), mul(a, w["attn_v"])
        q = q.reshape(q.shape[:-1] + (HEADS, HEAD_WIDTH))
        k = k.reshape(k.shape[:-1] + (KV_HEADS, HEAD_WIDTH))
        v = v.reshape(v.shape[:-1] + (KV_HEADS, HEAD_WIDTH))
        raw_q, raw_k, rq, rk = q, k, None, None
        if arch == "qwen3":
            q, rq = norm(q, vector(p[f"blk.{i}.attn_q_norm.weight"])[..., None, :])
            k, rk = norm(k, vector(p[f"blk.{i}.attn_k_norm.weight"])[..., None, :])
        q, k = heads_first(rotate(q, arch)), heads_first(rotate(k, arch))
        k = np.repeat(k, HEADS // KV_HEADS, -3)
        v = np.repeat(heads_first(v), HEADS // KV_HEADS, -3)
        s = np.where(causal, q @ np.swapaxes(k, -1, -2) / np.sqrt(HEAD_WIDTH), -np.inf)
        s = np.exp(s - s.max(-1, keepdims=True))
        s = s / s.sum(-1, keepdims=True)
        o = heads_first(s @ v)
        o = o.reshape(o.shape[:-2] + (HEADS * HEAD_WIDTH,))
        mid = x + mul(o, w["attn_output"])
        b, rb = norm(mid, vector(w["ffn_norm"]))
        g, u = mul(b, w["ffn_gate"]), mul(b, w["ffn_up"])
        h = g / (1 + np.exp(-g)) * u
        if keep is not None:
            keep.append((x, a, ra, raw_q, raw_k, rq, rk, q, k, v, s, o, mid, b, rb, g, u, h))
        x = mid + mul(h, w["ffn_down"])
    n, r = norm(x, vector(p["output_norm.weight"]))
    logits = mul(n, p["token_embd.weight" if tied else "output.weight"])
    logits = logits - logits.max(-1, keepdims=True)
    exp = np.exp(logits)
    total = exp.sum(-1)
    target = np.broadcast_to(ids[:, 1:, None], logits.shape[:-1] + (1,))
    losses = np.log(total) - np.take_along_axis(logits, target, -1)[..., 0]
    if keep is not None:
        keep.append((x, n, r, exp / total[..., None]))
    return np.where(mask, losses, 0).sum((-1, -2)) / mask.sum()


def flat(x):
    return x.reshape(-1, x.shape[-1])


def norm_back(x, w, r, dy):
    t = dy * w
    return t * r - x * (r ** 3 * (t * x).mean(-1, keepdims=True)), flat(dy * x * r).sum(0)


def backward(p, arch, tied, ids, mask):
    """Gradients of the mean loss."""
    kept, g = [], {}
    forward(p, arch, tied, ids, mask, kept)
    x, n, r, soft = kept.pop()
    d = soft.copy()
    np.put_along_axis(d, ids[:, 1:, None], np.take_along_axis(d, ids[:, 1:, None], -1) - 1, -1)
    d *= mask[..., None] / mask.sum()
    head = "token_embd.weight" if tied else "output.weight"
    g[head] = flat(d).T @ flat(n)
    dx, g["output_norm.weight"] = norm_back(x, p["output_norm.weight"], r, d @ p[head])
    group = HEADS // KV_HEADS
    for i in reversed(range(LAYERS)):
        x, a, ra, raw_q, raw_k, rq, rk, q, k, v, s, o, mid, b, rb, gate, up, h = kept.pop()
        name = f"blk.{i}.%s.weight"
        dh = dx @ p[name % "ffn_down"]
        g[name % "ffn_down"] = flat(dx).T @ flat(h)
        sig = 1 / (1 + np.exp(-gate))
        dgate, dup = dh * up * (sig + gate * sig * (1 - sig)), dh * gate * sig
        g[name % "ffn_gate"], g[name % "ffn_up"] = flat(dgate).T @ flat(b), flat(dup).T @ flat(b)
        db, g[name % "ffn_norm"] = norm_back(mid, p[name % "ffn_norm"], rb,
                                             dgate @ p[name % "ffn_gate"] + dup @ p[name % "ffn_up"])
        dmid = dx + db
        g[name % "attn_output"] = flat(dmid).T @ flat(o)
        do = dmid @ p[name % "attn_output"]
        do = heads_first(do.reshape(do.shape[:-1] + (HEADS, HEAD_WIDTH)))
        ds = do @ np.swapaxes(v, -1, -2)
        ds = s * (ds - (ds * s).sum(-1, keepdims=True)) / np.sqrt(HEAD_WIDTH)
        dq, dk, dv = ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(s, -1, -2) @ do
        shape = dk.shape[:1] + (KV_HEADS, group) + dk.shape[2:]
        dk, dv = dk.reshape(shape).sum(2), dv.reshape(shape).sum(2)
        dq, dk, dv = rotate(heads_first(dq), arch, True), rotate(heads_first(dk), arch, True), heads_first(dv)
        if arch == "qwen3":
            dq, g[name % "attn_q_norm"] = norm_back(raw_q, p[name % "attn_q_norm"], rq, dq)
            dk, g[name % "attn_k_norm"] = norm_back(raw_k, p[name % "attn_k_norm"], rk, dk)
        da = 0
        for what, dy in (("attn_q", dq), ("attn_k", dk), ("attn_v", dv)):
            dy = dy.reshape(dy.shape[:2] + (-1,))
            g[name % what] = flat(dy).T @ flat(a)
            da = da + dy @ p[name % what]
        dn, g[name % "attn_norm"] = norm_back(x, p[name % "attn_norm"], ra, da)
        dx = dmid + dn
    embedding = g.get("token_embd.weight", 0) + np.zeros_like(p["token_embd.weight"])
    np.add.at(embedding, ids[:, :-1], dx)
    g["token_embd.weight"] = embedding
    return g


def differences(p, run, ids, mask, h=1e-5, copies=96):
    """Central differences of the mean loss by every parameter."""
    g = {}
    for name, value in p.items():
        g[name] = np.empty(value.size)
        for at in range(0, value.size, copies):
            n = min(copies, value.size - at)
            moved = np.repeat(value.reshape(1, -1), 2 * n, 0)
            moved[np.arange(n), at + np.arange(n)] += h
            moved[n + np.arange(n), at + np.arange(n)] -= h
            loss = forward({**p, name: moved.reshape((2 * n,) + value.shape)}, run.arch, run.tied, ids, mask)
            g[name][at:at + n] = (loss[:n] - loss[n:]) / (2 * h)
        g[name] = g[name].reshape(value.shape)
    return g


def worst(got, expected):
    """Largest difference, relative above FLOOR, and where."""
    return max((float((np.abs(got[k] - expected[k]) / np.maximum(np.abs(expected[k]), FLOOR)).max()), k)
               for k in expected)


def check_gradients(tap, run):
    label = f"{run.arch}, {'tied' if run.tied else 'untied'}"
    p = run.named(run.values("values", 0))
    ids, mask = run.tokens(0)
    expected = differences(p, run, ids, mask)
    off, where = worst(run.named(run.values("gradient", 0)), expected)
    tap.ok(off < 1e-3, f"{label}: gradients of all parameters are central differences", f"{off} in {where}")
    off, where = worst(backward(p, run.arch, run.tied, ids, mask), expected)
    tap.ok(off < 1e-4, f"{label}: and so are those written down here", f"{off} in {where}")


def rate(step, steps, top=5e-3, floor=0.1):
    warmup, low = steps // 5, floor * top
    if step <= warmup:
        return top * step / warmup
    return low + (top - low) / 2 * (1 + np.cos(np.pi * (step - warmup) / (steps - warmup)))


def check_steps(tap, run, steps):
    label = f"{run.arch}, {'tied' if run.tied else 'untied'}, context {run.context}"
    values = run.values("values", 0)
    m, v, off, told = np.zeros_like(values), np.zeros_like(values), 0, 0
    decay = np.zeros_like(values)
    for name, (shape, at) in run.tensors.items():
        decay[at:at + int(np.prod(shape))] = DECAY * (len(shape) == 2 and name != "token_embd.weight")
    for step in range(1, steps + 1):
        p = run.named(values)
        ids, mask = run.tokens(step - 1)
        named = backward(p, run.arch, run.tied, ids, mask)
        g = np.concatenate([named[k].ravel() for k in run.tensors])
        size, loss = np.sqrt((g * g).sum()), forward(p, run.arch, run.tied, ids, mask)
        report = [step, loss, rate(step, steps), size, mask.sum()]
        told = max(told, float(np.max(np.abs(np.array(run.reports[step - 1]) / report - 1))))
        g *= min(1, CLIP / size)
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
        change = m / (1 - BETA1 ** step) / (np.sqrt(v / (1 - BETA2 ** step)) + EPSILON)
        values = values - rate(step, steps) * (change + decay * values)
        off = max(off, float(np.abs(run.values("values", step) - values).max()))
    tap.ok(off < 1e-5, f"{label}: parameters after each of {steps} steps are NumPy's", off)
    tap.ok(told < 1e-5, f"{label}: so are loss, rate, norm and tokens", told)
    for name, expected in (("m", m), ("v", v)):
        off = float(np.abs(run.values(name, steps) - expected).max() / np.abs(expected).max())
        tap.ok(off < 1e-4, f"{label}: so is {name}", off)


def main():
    tap = Tap()
    for arch, tied in (("llama", False), ("qwen3", True)):
        with tempfile.TemporaryDirectory() as folder:
            check_gradients(tap, Run(folder, arch, tied, 1, 9))
    # more than a block of queries, and of rows of the head
    for arch, tied, context in (("llama", True, 9), ("qwen3", False, 9), ("llama", False, 300), ("qwen3", True, 130)):
        with tempfile.TemporaryDirectory() as folder:
            check_steps(tap, Run(folder, arch, tied, 4, context), 4)
    tap.exit()


if __name__ == "__main__":
    main()
