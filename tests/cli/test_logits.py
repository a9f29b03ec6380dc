"""The bundled model: score's logits, log-likelihood and perplexity against exact ones, and the exact
greedy text. And the logits of every shared model: relative error at most 1.03 times the fastest
open engine's (peer-error.json)."""
import json
import os
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ROOT, SHARED, STORIES, Tap, job_file, model, saf, scratch  # noqa: E402

tap = Tap()
EXACT = os.path.join(ROOT, "tests", "data", "stories260K.")

SCORE = """job = "score";
model: {{ path = "{model}"; }};
input: {{ tokens = "{tokens}"; }};
score: {{ logits = true; }};
output: {{ file = "{out}"; }};
"""


def score_logits(folder, path, tokens, *settings, **kwargs):
    out = os.path.join(folder, "out.h5")
    job = job_file(folder, SCORE.format(model=path, tokens=tokens, out=out))
    run = saf("run", job, "--quiet", *settings, **kwargs)
    if run.returncode != 0:
        return None, run.stderr
    with h5py.File(out) as f:
        return f["logits"][...].astype(np.float64), run.stderr


def relative_error(got, exact):
    return np.linalg.norm(got - exact) / np.linalg.norm(exact)


def kl_mean(got, exact):
    def logsoftmax(x):
        x = x - x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    p, q = logsoftmax(exact), logsoftmax(got)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def check_peers(folder):
    with open(os.path.join(SHARED, "models", "peer-error.json")) as f:
        peers = json.load(f)
    tokens = os.path.join(SHARED, "models", "tokens48.txt")
    for name, peer in sorted(peers.items()):
        exact = np.fromfile(model(name.replace(".gguf", ".logits.f32")), dtype="<f4")
        got, err = score_logits(folder, model(name), tokens)
        if got is None:
            tap.ok(False, name, err)
            continue
        exact = exact.reshape(48, -1).astype(np.float64)
        error = relative_error(got, exact)
        print(f"# {name}: relative error {error:.3g}, peer {peer['rel_error']:.3g}, ratio "
              f"{error / peer['rel_error']:.3f}; mean KL {kl_mean(got, exact):.3g}, peer "
              f"{peer['kl_mean']:.3g}")
        tap.ok(error <= 1.03 * peer["rel_error"], f"{name}: as close as the peer", error)


def check_score(folder):
    tokens = EXACT + "tokens.txt"
    exact = np.fromfile(EXACT + "logits.f32", dtype="<f4")
    got, err = score_logits(folder, STORIES, tokens)
    exact = exact.reshape(-1, 512).astype(np.float64)
    # F16 cache and f32 arithmetic against float64: no quantised weight, so errors are tiny.
    tap.ok(got is not None and relative_error(got, exact) < 1e-3, "stories260K: logits",
           err if got is None else relative_error(got, exact))

    ids = np.array(open(tokens).read().split(), dtype=int)
    shifted = exact - exact.max(axis=1, keepdims=True)
    logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    expected = float(sum(logprobs[i, ids[i + 1]] for i in range(len(ids) - 1)))
    with h5py.File(os.path.join(folder, "out.h5")) as f:
        row = f["requests"][0]
    tap.ok(abs(row["log_likelihood"] - expected) < 1e-3 * abs(expected),
           f"stories260K: log-likelihood {row['log_likelihood']:.4f}, exact {expected:.4f}")
    perplexity = float(np.exp(-expected / (len(ids) - 1)))
    tap.ok(abs(row["perplexity"] - perplexity) < 1e-3 * perplexity,
           f"stories260K: perplexity {row['perplexity']:.4f}, exact {perplexity:.4f}")


def check_cache_types(folder):
    """How far each type of cache takes the logits of the bundled model, whose weights are f32."""
    exact = np.fromfile(EXACT + "logits.f32", dtype="<f4").reshape(-1, 512).astype(np.float64)
    errors = {}
    for kv_type, most in (("f32", 2e-6), ("f16", 1e-3), ("q8_0", 2e-2)):
        got, err = score_logits(folder, STORIES, EXACT + "tokens.txt", f"model.kv_type={kv_type}")
        errors[kv_type] = np.inf if got is None else relative_error(got, exact)
        tap.ok(errors[kv_type] < most, f"a {kv_type} cache: relative error {errors[kv_type]:.2g}", err)
    # 8 bits against 11: an error some way above, or the setting did nothing
    tap.ok(errors["f32"] < errors["f16"] < errors["q8_0"], "coarser caches, larger errors", errors)


def check_greedy(folder):
    prompts, texts = [], []
    for block in open(EXACT + "greedy.txt").read().split("### "):
        if block:
            prompt, _, text = block.partition("\n")
            prompts.append(prompt)
            texts.append(text.rstrip("\n"))
    out = os.path.join(folder, "greedy.h5")
    with open(os.path.join(folder, "prompts.txt"), "w") as f:
        f.write("\n".join(prompts) + "\n")
    job = job_file(folder, f"""job = "generate";
model: {{ path = "{STORIES}"; }};
input: {{ prompts = "{folder}/prompts.txt"; }};
generate: {{ max_tokens = 96; temperature = 0.0; }};
output: {{ file = "{out}"; }};
""")
    for ranks in (0, 3):
        run = saf("run", job, "--quiet", ranks=ranks)
        if not tap.ok(run.returncode == 0, f"stories260K: runs on {ranks or 1} ranks", run.stderr):
            continue
        with h5py.File(out) as f:
            got = list(f["text/completion"].asstr())
        for prompt, expected, text in zip(prompts, texts, got):
            tap.equal(text, expected, f"stories260K: \"{prompt}\", {ranks or 1} ranks")


with scratch() as scratch_folder:
    check_score(scratch_folder)
    check_cache_types(scratch_folder)
    check_greedy(scratch_folder)
    if os.path.isdir(os.path.join(SHARED, "models")):
        check_peers(scratch_folder)
    else:
        tap.skip("logits of more models against exact ones", "no ../shared/models")
tap.exit()
