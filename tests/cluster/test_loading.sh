#!/bin/bash
# A model that only the first of two hosts has, over a link of 1 Gbit/s: the other is given its slice at
# the rate that the link has for a plain socket, and little else crosses it.
# shellcheck disable=SC2317 # functions are called by ok
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
# shellcheck source=tests/cluster/job.sh
. tests/cluster/job.sh

RATE=125000000 # bytes a second of the link

# Prints the bytes a second that 250 MB take from h1 to h2 by a plain socket.
socket_rate() {
    "$PYTHON" -c '
import socket
c = socket.create_server(("", 7000)).accept()[0]
for _ in range(250): c.sendall(bytes(1000000))
c.shutdown(socket.SHUT_WR)
c.recv(1)' &
    sleep 0.5
    "$RSH" h2 "$PYTHON" -c "'
import socket, time
s = socket.create_connection((\"h1\", 7000))
t, n = time.perf_counter(), 0
while piece := s.recv(1 << 20): n += len(piece)
print(int(n / (time.perf_counter() - t)))'"
    wait
}

# Prints the bytes that have come to h2 so far.
received() { "$RSH" h2 cat /proc/net/dev | awk '$1 == "eth0:" { print $2 }'; }

at_least() { # at_least VALUE LIMIT
    awk -v x="$1" -v y="$2" 'BEGIN { exit !(x >= y) }' || { echo "$1 is below $2"; return 1; }
}

# Prints a column of the table of ranks.
of_rank() { # of_rank FILE RANK COLUMN
    "$PYTHON" -c 'import sys, h5py
print(int(h5py.File(sys.argv[1])["ranks"][sys.argv[3]][int(sys.argv[2])]))' "$@"
}

[ "${1:-}" = inside ] || enter "hosts with a link of 1 Gbit/s" tests/cluster/hosts 2 --rate 1gbit
exec 2>&1
folder=$(mktemp -d)
mkdir "$folder/models"
model=$folder/models/model.gguf
ok "a model is made" "$SAF" model make "$model" --arch qwen3 --shape 14:1024:16:8:128:3072 \
    --type q8_0 --vocab-size 100000 --seed 1 || tap_exit
words=(jobs/generate.cfg "model.path=$model" input.prompts=jobs/data/demo.txt generate.max_tokens=2)
ok "the job runs where both have the file" mpirun -np 2 --hostfile "$HOSTFILE" --map-by node --bind-to none \
    "$SAF" run "${words[@]}" "output.file=$folder/both.h5" || tap_exit
ok "the file is hidden from h2" "$RSH" h2 mount -t tmpfs none "$folder/models"
ok "h2 does not see it" "$RSH" h2 test ! -e "$model"
best=$(socket_rate)
for attempt in 1 2 3; do # the machine may be busy with something else
    before=$(received)
    # shellcheck disable=SC2016 # the rank's own shell expands them
    ok "the job runs" mpirun -np 2 --hostfile "$HOSTFILE" --map-by node --bind-to none \
        sh -c '"$@" 2>"$0.$OMPI_COMM_WORLD_RANK"' "$folder/log" \
        "$SAF" run "${words[@]}" "output.file=$folder/given$attempt.h5" || break
    came=$(($(received) - before))
    seconds=$(sed -n 's/.*loaded .* in \([0-9.]*\) s.*/\1/p' "$folder/log.0")
    slice=$(of_rank "$folder/given$attempt.h5" 1 weight_bytes)
    rate=$(awk -v n="$slice" -v s="$seconds" 'BEGIN { printf "%d", n / s }')
    mv "$folder/given$attempt.h5" "$folder/given.h5"
    [ "$rate" -lt $((RATE * 9 / 10)) ] || break
done
cat "$folder"/log.* | sed 's/^/# /'
equal "a rank on each host" "$(fact "$folder/given.h5" hosts)" "h1 h2"
equal "the same tokens as with two files" \
    "$(fact "$folder/given.h5" tokens_sha256)" "$(fact "$folder/both.h5" tokens_sha256)"
others=$(($(of_rank "$folder/both.h5" 1 bytes_received)))
echo "# a slice of $slice bytes in $seconds s: $rate bytes/s, a plain socket $best; $came bytes on the interface, $others of them activations"
ok "90 % of what a plain socket reaches" at_least "$rate" "$((best * 9 / 10))"
ok "90 % of the link's rate" at_least "$rate" "$((RATE * 9 / 10))"
ok "at most 1.02 times the slice on the interface" at_least "$((slice * 102 / 100))" "$((came - others))"
tap_exit
