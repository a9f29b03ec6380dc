#!/bin/bash
# Products over hosts: their bits, and that as many bytes travel as the plan says.
# shellcheck disable=SC2317 # functions are called by ok
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh

[ "${1:-}" = inside ] || enter "hosts on this machine" tests/cluster/hosts 3
build=${BUILD:-build}/tests/mpi

multiply() { # multiply PROGRAM RANKS, dealt out to the hosts one by one; all with the same kernels of OpenBLAS
    mpirun -x SAF_TEST_EVERY=23 ${OPENBLAS_CORETYPE:+-x OPENBLAS_CORETYPE} -np "$2" --hostfile "$HOSTFILE" --map-by node --oversubscribe "$build/$1"
}
ok "four ranks on hosts" multiply test_matrix 4
ok "a product goes on from one grid to another" multiply test_matrix_resume 3
tap_exit
