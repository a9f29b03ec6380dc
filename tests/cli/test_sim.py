"""Plans against simulations of the same runs on eight hosts, where SimGrid is installed: the short form of
`make bench-sim` (see tests/sim/sim.h)."""
import os
import sys

HERE = os.path.dirname(__file__)
sys.path.insert(0, os.path.join(HERE, "..", "tools"))
sys.path.insert(0, os.path.join(HERE, "..", "sim"))
import sim  # noqa: E402
from saftest import SAF, Tap, scratch  # noqa: E402

tap = Tap()
there = os.path.exists(os.path.join(os.path.dirname(SAF), "sim-flights"))
with scratch() as folder:
    for name, case in sim.CASES.items():
        if case["hosts"] != 8:
            continue
        if not there:
            tap.skip(name, "built without SimGrid, which `make bench-sim` installs")
            continue
        planned, got, ranks = (sim.product if "product" in case else sim.flights)(folder, case)
        tap.ok(abs(planned / got - 1) <= sim.WITHIN[ranks], f"{name}: as simulated", f"planned {planned} s, simulated {got} s")
tap.exit()
