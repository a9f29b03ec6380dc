"""Some of the faults that `make test-inject` tries in full: calls for memory and files that fail."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "tools"), os.path.join(HERE, "..", "inject")]
from cases import all_cases  # noqa: E402
from inject import Campaign, where  # noqa: E402
from saftest import Tap, watched  # noqa: E402

EVERY = {"resume": 800, "stop": 800, "generate": 200, "score": 1000, "report": 150, "json": 600, "info": 25, "tokens": 50,
         "make": 20, "vocab": 300, "train": 8000}

tap = Tap()


def faults_of(name):
    """A job to be stopped may have been prepared so near its end that it is over first: then from the start."""
    for left in (2, 1, 0):
        try:
            return Campaign(next(c for c in all_cases() if c.name == name)).run(EVERY[name])
        except RuntimeError as e:
            if left == 0 or "fails by itself" not in str(e):
                raise
    return []


for case in all_cases():
    name = f"{case.name}: one in {EVERY[case.name]} calls fails"
    if watched():
        tap.skip(name, "the address sanitizer has a malloc of its own")
        continue
    faults = faults_of(case.name)
    bad = [f"{f.kind} {f.k} {f.error}{' and all after it' * f.sticky}: {f.problem}\n  {where(f)}\n  "
           f"{f.message}" for f in faults if f.problem]
    tap.ok(faults and not bad, name + f": {len(faults)} faults", "\n".join(bad))
tap.exit()
