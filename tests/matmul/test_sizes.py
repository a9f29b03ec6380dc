"""Every case of tests/mpi/test_matrix_sizes.c on 1 to 9 ranks, one mpirun for each number of ranks: each
product is OpenBLAS's within what rounding explains, and its bits are the same on all of them."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, SAF, Tap, scratch  # noqa: E402

RANKS = range(1, int(os.environ.get("SAF_TEST_RANKS", "9")) + 1)
PROGRAM = os.path.join(os.path.dirname(SAF), "tests", "mpi", "test_matrix_sizes")

tap = Tap()
with scratch() as folder:
    first, runs = None, 0
    for ranks in RANKS:
        path = os.path.join(folder, f"hashes-{ranks}")
        env = dict(ENV, SAF_TEST_MATMUL_LONG="1", SAF_TEST_HASHES=path, OMP_WAIT_POLICY="passive")
        p = subprocess.run(["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", PROGRAM], env=env,
                           text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=3600, check=False)
        if not tap.ok(p.returncode == 0 and os.path.exists(path), f"as OpenBLAS on {ranks} ranks", p.stderr):
            continue
        with open(path, encoding="ascii") as f:
            hashes = f.read().splitlines()
        first = first or hashes
        runs += len(hashes)
        other = [a.split()[0] for a, b in zip(first, hashes) if a != b]
        tap.ok(len(hashes) >= 2000 and len(hashes) == len(first) and not other,
               f"{len(hashes)} products on {ranks} ranks: the same bits", f"others in cases {other[:20]}")
    print(f"# {len(first or [])} cases, {runs} products")
tap.exit()
