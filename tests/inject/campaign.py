"""Every fault of every case (make test-inject), or some:
    campaign.py [--case NAME] [--kind KIND] [--every N] [--k K] [--verbose]"""
import argparse
import collections
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "tools"), HERE]
from cases import all_cases  # noqa: E402
from inject import KINDS, Campaign, where  # noqa: E402
from saftest import Tap  # noqa: E402


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--case")
    words.add_argument("--kind")
    words.add_argument("--every", type=int, default=1)
    words.add_argument("--k", type=int)
    words.add_argument("--verbose", action="store_true")
    a = words.parse_args()
    tap = Tap()
    total = collections.Counter()
    for case in all_cases():
        if a.case and case.name != a.case:
            continue
        start = time.monotonic()
        campaign = Campaign(case)
        faults = campaign.run(a.every, [a.kind] if a.kind else None, a.k)
        for kind in KINDS:
            mine = [f for f in faults if f.kind == kind]
            total[kind] += len(mine)
            if not mine:
                continue
            codes = collections.Counter(f.code for f in mine)
            bad = [f for f in mine if f.problem]
            alike = collections.defaultdict(list)
            for f in bad:
                alike[f.problem.splitlines()[0], f.error, where(f)].append(f)
            detail = "\n".join(f"{len(fs)}x {what} ({error}), first k = {fs[0].k}\n    {place}\n"
                               f"    {fs[0].message}" for (what, error, place), fs in alike.items())
            tap.ok(not bad, f"{case.name}: {kind}: {campaign.counts[kind]} calls, {len(mine)} faults; "
                   f"exit codes {dict(codes)}", detail)
            if a.verbose:
                for f in mine:
                    print(f"# {f.kind} {f.k} {f.error}: {f.code} {f.message} {where(f)}")
        print(f"# {case.name}: {len(faults)} faults in {time.monotonic() - start:.0f} s", flush=True)
    print("#", sum(total.values()), "faults:", ", ".join(f"{k} {n}" for k, n in total.items() if n))
    tap.exit()


main()
