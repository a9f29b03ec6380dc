#!/bin/bash
# saf detect over hosts with names and networks of their own, on this machine: all links, at the rate they have; eight
# hosts in half a minute; and one that a control group leaves little memory.
# shellcheck disable=SC2016,SC2317 # for the inner shell; functions are called by ok
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
SAF=$(realpath "${BUILD:-build}/saf")
PYTHON=${PYTHON:-/usr/bin/python3}
export SAF

# Every two hosts once, and in a round no host twice. Eight that share a few cores disturb each other, so that single rates
# say little here.
eight_hosts() {
    ok "eight hosts" tests/cluster/hosts 8 -- sh -c 'exec mpirun --hostfile "$HOSTFILE" --map-by node -np 8 \
        --bind-to none "$SAF" detect --output "$0" --folder "$TMPDIR" --quiet' "$folder/eight.h5" || return
    ok "every two of them, in rounds where no host is in two pairs, within half a minute" "$PYTHON" - "$folder/eight.h5" <<'PY'
import os
import sys
import h5py
with h5py.File(sys.argv[1]) as f:
    links, hosts, seconds = f["links"][:], f["hosts"][:], float(f.attrs["seconds"])
print(links, seconds)
pairs = {frozenset((row["host_a"], row["host_b"])) for row in links}
assert len(set(hosts["host"])) == 8 and len(links) == 28 and len(pairs) == 28 and all(len(pair) == 2 for pair in pairs)
for number in range(7):
    met = [host for row in links if row["round"] == number for host in (row["host_a"], row["host_b"])]
    assert len(met) == 8 and len(set(met)) == 8, number
# They are one machine, whose memory each has for itself for a moment, and then all at once.
assert set(hosts["machine"]) == {0}, hosts["machine"]
assert (hosts["together_read_bytes_s"] > 0).all()
# All of them together read about what one does alone: each may use all cores.
assert 0.2 < hosts["together_read_bytes_s"].sum() / sorted(hosts["read_bytes_s"])[4] < 3
assert 0 < seconds <= 60 * int(os.environ.get("SAF_TEST_PATIENCE", "1"))
PY
}

# 256 MiB of a folder in memory would not fit.
small_host() {
    local hosts=(tests/cluster/hosts 1 --memory 250M) said
    if ! said=$("${hosts[@]}" -- true 2>&1); then
        skip "a host of 250 MiB" "$said"
        return
    fi
    ok "a host of 250 MiB" "${hosts[@]}" -- sh -c 'exec "$SAF" detect --output "$0" --folder "$TMPDIR" --quiet' \
        "$folder/small.h5" || return
    ok "and its limit is found" "$PYTHON" - "$folder/small.h5" <<'PY'
import sys
import h5py
with h5py.File(sys.argv[1]) as f:
    host = f["hosts"][0]
print(host)
assert host["memory_limit_bytes"] == 250 << 20 < host["memory_bytes"] and host["available_bytes"] <= 250 << 20
assert 0 < host["disk_bytes"] <= 32 << 20
PY
}

if [ "${1:-}" != inside ]; then
    if tests/cluster/hosts 1 -- true 2>/dev/null; then
        folder=$(mktemp -d) || exit 1
        trap 'rm -rf "$folder"' EXIT
        eight_hosts
        small_host
    fi
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
    assert 0 < row["latency_s"] < 0.05 and 0 < row["short_s"] < 0.05
PY
tap_exit
