#!/bin/bash
# saf detect over hosts with names and networks of their own, on this machine: all links, at the rate they have.
# shellcheck disable=SC2016 # for the inner shell
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
SAF=${BUILD:-build}/saf
PYTHON=${PYTHON:-/usr/bin/python3}
if [ "${1:-}" != inside ]; then
    enter "hosts on this machine" tests/cluster/hosts 3 --rate 200mbit
fi
exec 2>&1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
ok "three hosts" mpirun --hostfile "$HOSTFILE" --map-by node -np 3 --bind-to none \
    "$SAF" detect --output "$folder/three.h5" --folder "$folder" --quiet
ok "every two of them, at the rate of their links" "$PYTHON" - "$folder/three.h5" <<'PY'
import sys
import h5py
with h5py.File(sys.argv[1]) as f:
    links, hosts = f["links"][:], f["hosts"][:]
    seconds = f.attrs["seconds"]
print(links, seconds)
pairs = {frozenset((row["host_a"], row["host_b"])) for row in links}
assert len(hosts) == 3 and len(links) == 3 and len(pairs) == 3 and len({row["round"] for row in links}) == 3
for row in links:
    # Other work of this machine takes some, and none gets more.
    assert 0.2 * 25e6 < row["bytes_s_to_a"] < 1.3 * 25e6 and 0.2 * 25e6 < row["bytes_s_to_b"] < 1.3 * 25e6
    assert 0 < row["latency_s"] < 0.05
PY
tap_exit
