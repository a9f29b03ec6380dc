#!/bin/bash
# Memory that ranks share, where they are on several hosts, and where a host has little of it.
# shellcheck disable=SC2317 # functions are called by ok
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh

[ "${1:-}" = inside ] || enter "hosts on this machine" tests/cluster/hosts 2
program=${BUILD:-build}/tests/mpi/test_comm_shared

# Ranks 0 and 2 on one host, 1 and 3 on the other.
meet() { # meet RANKS
    mpirun -np "$1" --hostfile "$HOSTFILE" --map-by node --oversubscribe "$program"
}
for ranks in 2 3 4; do ok "$ranks ranks on two hosts" meet $ranks; done

# Messages that go through memory inside a host and by MPI between the two.
near() { # near MAPPING RANKS
    SAF_TEST_HOSTS=1 mpirun -x SAF_TEST_HOSTS -np "$2" --host h1:4,h2:4 --map-by "$1" --oversubscribe \
        "${BUILD:-build}/tests/mpi/test_comm_near"
}
ok "short messages of eight ranks, four beside each other" near slot 8
ok "of three by turns" near node 3

# /dev/shm is of this host alone, and holds what MPI takes at its start.
small() {
    mount -o remount,size=6m /dev/shm || return
    mpirun -np 2 --host h1:2 --oversubscribe "$program"
}
said=$(small 2>&1)
status=$?
ok "a small /dev/shm is an error" test $status -eq 1
ok "which says so" \
    grep -q "no .* bytes of shared memory: /dev/shm has .* bytes left" <<<"$said"
tap_exit
