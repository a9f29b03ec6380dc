#!/bin/bash
# mpirun over a hostfile: hosts with names and networks of their own, on this machine.
# shellcheck disable=SC2317 # functions are called by ok and within
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
# shellcheck source=tests/cluster/job.sh
. tests/cluster/job.sh

# A command line that nobody else has.
sleeping=(sleep "3$$.5")

sleeps() { ! no_process "${sleeping[@]}" >/dev/null; }

# The seconds that 4 MB take from h1 to h2, by a plain socket.
transfer_seconds() {
    "$RSH" h2 "$PYTHON" -c "'
import socket
s = socket.create_server((\"\", 7000))
c = s.accept()[0]
while c.recv(1 << 20): pass
c.sendall(b\"x\")'" &
    within 5 "$PYTHON" -c '
import socket, time
s = socket.create_connection(("h2", 7000))
t = time.perf_counter()
s.sendall(bytes(4000000))
s.shutdown(socket.SHUT_WR)
s.recv(1)
print(time.perf_counter() - t)' 2>/dev/null
    wait
}

between() { # between LOW VALUE HIGH
    awk -v a="$1" -v x="$2" -v b="$3" 'BEGIN { exit !(a <= x && x <= b) }' || { echo "$2"; return 1; }
}

none_there() { # none_there PATH...
    local path left=0
    for path in "$@"; do [ ! -e "$path" ] || { echo "left over: $path" && left=1; }; done
    return "$left"
}

# Hosts whose memory control groups limit.
limited_hosts() {
    local hosts=(tests/cluster/hosts 2 --memory "300M,200M") said groups
    if ! said=$("${hosts[@]}" -- true 2>&1); then
        skip "hosts with memory of their own" "$said"
        return
    fi
    # shellcheck disable=SC2016
    said=$("${hosts[@]}" -- sh -c 'echo "$MEMORY_GROUP"
        for host in h1 h2; do
            $RSH $host "$0" -c "\"bytearray(230 << 20)\"" 2>/dev/null
            echo $?
        done' "$PYTHON" 2>/dev/null)
    mapfile -t groups <<<"$said"
    equal "230 MiB on a host of 300 MiB, and on one of 200" "${groups[*]:1}" "0 137"
    ok "nothing is left of their groups" none_there "${groups[0]}-h1" "${groups[0]}-h2"
    said=$(mktemp)
    # shellcheck disable=SC2016
    "${hosts[@]}" -- sh -c 'echo "$MEMORY_GROUP" >"$0" && exec "$@"' "$said" "${sleeping[@]}" 2>/dev/null &
    ok "they start" within 10 sleeps
    groups=("$(<"$said")-h1" "$(<"$said")-h2")
    ok "each has a group" test -d "${groups[0]}" -a -d "${groups[1]}"
    kill -KILL $!
    wait $! 2>/dev/null
    ok "nor when the hosts are killed" within 5 none_there "${groups[@]}"
    rm -f "$said"
}

if [ "${1:-}" != inside ]; then
    if tests/cluster/hosts 1 -- true 2>/dev/null; then
        # shellcheck disable=SC2016
        tests/cluster/hosts 2 -- sh -c 'mpirun --hostfile "$HOSTFILE" "$@"' sh "${sleeping[@]}" 2>/dev/null &
        ok "ranks start" within 10 sleeps
        kill -KILL $!
        wait $! 2>/dev/null
        ok "nothing is left when the hosts are killed" within 5 no_process "${sleeping[@]}"
        tests/cluster/hosts 1 -- sh -c 'exit 7'
        equal "the command's exit status is passed on" $? 7
        # shellcheck disable=SC2016
        seconds=$(tests/cluster/hosts 2 --rate 100mbit -- bash "$0" inside transfer)
        ok "4 MB at 100 Mbit/s take 0.32 s" between 0.29 "$seconds" 3
        limited_hosts
    fi
    enter "hosts on this machine" tests/cluster/hosts 2
fi

if [ "${2:-}" = transfer ]; then
    transfer_seconds
    exit
fi
exec 2>&1
prepare_job || tap_exit
# The example with its first two machines replaced by the hosts here, one by name and one by address.
sed -n '/^[^#]/p' hostfiles/lab.hosts | sed -e '1s/^[^ ]*/h1/' -e '2s/^[^ ]*/10.77.0.2/' -e 2q >"$folder/lab.hosts"
ok "the job over a hostfile" mpirun -np 2 --hostfile "$folder/lab.hosts" --map-by slot --bind-to none \
    "$SAF" run "${words[@]}" "output.file=$folder/hosts.h5"
check_results "$folder/hosts.h5"
tap_exit
