"""What does a link between two hosts cost? `make bench-link` (by CASES, RATE, TYPE, REPEATS)

The same two one-thread ranks, a core for each, in turn on one host and on two hosts of network
namespaces with a link of RATE (1gbit) between them. The cases are those of `make bench-ranks`. Medians.
"""
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, scratch  # noqa: E402
from model import bench_model  # noqa: E402
import ranks  # noqa: E402

RATE = os.environ.get("RATE", "1gbit")
PINNED = ["sh", "-c", 'exec taskset -c $OMPI_COMM_WORLD_RANK "$@"', "sh"]


def run(hosts, case, model, folder):
    """Tokens a second and how busy the ranks are, on these hosts in order."""
    _, prompt, tokens, sequences, micro_batch, pipeline, tensor = ranks.CASES[case]
    command = ranks.command(model, folder, prompt, tokens, sequences, micro_batch, "out", pipeline,
                            tensor)
    line = ["mpirun"]
    for host in hosts:
        line += ["-np", "1", "--host", host + ":2", *PINNED, *command, ":"]
    ranks.finish(subprocess.Popen(line[:-1], cwd=ROOT, env=ENV))
    return ranks.rate(folder, "out", prompt)


def measure(case, model, folder):
    of_one, of_two, shares, busiest = [], [], [], []
    for repeat in range(ranks.REPEATS):
        shared, _ = run(("h1", "h1"), case, model, folder)
        linked, busy = run(("h1", "h2"), case, model, folder)
        print(f"{case} {repeat}: one host {shared:.1f} tokens/s, two hosts {linked:.1f} "
              f"({linked / shared:.2f} x, busy {' '.join(f'{b:.2f}' for b in busy)})", flush=True)
        of_one.append(shared)
        of_two.append(linked)
        shares.append(linked / shared)
        busiest.append(min(busy))
    one, two, share, busy = map(statistics.median, (of_one, of_two, shares, busiest))
    print(f"{case}: one host {one:.1f} tokens/s, over {RATE} {two:.1f}, share {share:.2f}, least busy rank "
          f"{busy:.2f} (medians of {ranks.REPEATS})", flush=True)


def main():
    model = bench_model(os.environ.get("TYPE", "q8_0"))
    if "HOSTFILE" not in os.environ:
        hosts = os.path.join(ROOT, "tests", "cluster", "hosts")
        os.execv(hosts, [hosts, "2", "--rate", RATE, "--", sys.executable, __file__])
    with scratch() as folder:
        for case in ranks.cases():
            measure(case, model, folder)


if __name__ == "__main__":
    main()
