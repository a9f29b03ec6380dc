"""Where each layout stops paying: the tables of doc/scaling.md, by `saf plan` alone (`make bench-scaling`)."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, scratch  # noqa: E402
from sim import LINKS, cluster, header, job  # noqa: E402

TABLES = {  # requests, prompt, tokens; what is shown
    "one sequence, tokens/s": ((1, 16, 128), lambda x: 1 / x["token_s"]),
    "512 requests, tokens/s": ((512, 16, 128), lambda x: x["decode_tokens_s"]),
    "a prompt of 4096, seconds to the first token": ((1, 4096, 1), lambda x: x["first_token_s"]),
}
LAYOUTS = {"tensor": lambda n: (1, 1, n), "pipeline": lambda n: (1, n, 1), "replicas": lambda n: (n, 1, 1)}


def main():
    with scratch() as folder:
        model = header(folder, "wide")
        for title, (work, figure) in TABLES.items():
            layouts = [k for k in LAYOUTS if k != "replicas" or work[0] > 1]
            print(f"\n{title}\n\n| hosts | " + " | ".join(f"{k}, {link}" for k in layouts for link in LINKS) + " |")
            print("|---" * (1 + len(layouts) * len(LINKS)) + "|")
            for n in (1, 2, 4, 8, 16, 32, 64):
                cells = []
                for layout in layouts:
                    for link in LINKS:
                        keys = [f"layout.{k}={v}" for k, v in zip(("replicas", "pipeline", "tensor"), LAYOUTS[layout](n))]
                        p = subprocess.run([SAF, "plan", job(folder, model, *work), "--cluster", cluster(folder, n, link), "--json", *keys],
                                           cwd=ROOT, env=ENV, check=True, stdout=subprocess.PIPE)
                        cells.append(f"{figure(json.loads(p.stdout)['layouts'][0]):.3g}")
                print(f"| {n} | " + " | ".join(cells) + " |", flush=True)


main()
