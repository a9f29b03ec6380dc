#!/bin/bash
# A model of more than 600 MB that only the first of two hosts has, over a link of 1 Gbit/s: the ranks of
# the other are given their slices at the rate that the link has for a plain socket, and little else
# crosses it. Half of that rate is enough here, for what else the machine does takes its part; `make
# bench-loading` asks for nine tenths.
# shellcheck disable=SC2317 # functions are called by ok
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/cluster/tap.sh
. tests/cluster/tap.sh
# shellcheck source=tests/cluster/job.sh
. tests/cluster/job.sh

RATE=125000000     # bytes a second of the link
SHARE=${SHARE:-50} # per cent of it, and of what a plain socket reaches

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

# Prints the sum of a column over the ranks on h2.
of_h2() { # of_h2 FILE COLUMN
    "$PYTHON" -c 'import sys, h5py
ranks = h5py.File(sys.argv[1])["ranks"][...]
print(int(ranks[sys.argv[2]][ranks["host"] == b"h2"].sum()))' "$@"
}

at_least() { # at_least VALUE LIMIT
    awk -v x="$1" -v y="$2" 'BEGIN { exit !(x >= y) }' || { echo "$1 is below $2"; return 1; }
}

job() { # job FILE "HOST of each rank..." SETTING
    local host line=()
    for host in $2; do
        # shellcheck disable=SC2016 # the rank's own shell expands them
        line+=(: -np 1 --host "$host:4" sh -c '"$@" 2>"$0.$OMPI_COMM_WORLD_RANK"' "$folder/log"
            "$SAF" run --fresh "${words[@]}" "output.file=$1" "$3")
    done
    mpirun "${line[@]:1}"
}

# Runs the job with the file on h1 alone, and leaves in `came` the bytes on h2's interface and in `rate`
# the bytes of slices a second.
attempt() { # attempt FILE "HOST of each rank..." SETTING
    local before seconds
    before=$(received)
    rm -f "$1"
    ok "$3 over $2: the job runs" job "$@" || return
    came=$(($(received) - before))
    seconds=$(sed -n 's/.*loaded .* in \([0-9.]*\) s.*/\1/p' "$folder/log.0")
    rate=$(awk -v n="$(of_h2 "$1" weight_bytes)" -v d="$same" -v s="$seconds" 'BEGIN { printf "%d", n / d / s }')
}

given() { # given "HOST of each rank..." SETTING [RANKS that hold the same]
    local file=$folder/given.h5 slices found name="$2 over $1" same=${3:-1}
    for _ in 1 2 3; do
        attempt "$file" "$@" || return
        [ "$rate" -lt $((RATE * SHARE / 100)) ] || break
    done
    sed 's/^/# /' "$folder"/log.*
    slices=$(($(of_h2 "$file" weight_bytes) / same))
    echo "# slices of $slices bytes, $rate bytes/s, a plain socket $best; $came bytes on the interface"
    mapfile -t found < <(fact "$file" hosts tokens_sha256)
    equal "its ranks are there" "${found[0]:-}" "$1"
    equal "the same tokens as one rank with the file" "${found[1]:-}" "$alone"
    ok "at most 1.02 times the slices on the interface" at_least "$((slices * 102 / 100))" "$came"
    ok "$name: $SHARE % of what a plain socket reaches" at_least "$rate" "$((best * SHARE / 100))"
    ok "$name: $SHARE % of the link's rate" at_least "$rate" "$((RATE * SHARE / 100))"
}

[ "${1:-}" = inside ] || enter "hosts with a link of 1 Gbit/s" tests/cluster/hosts 2 --rate 1gbit
exec 2>&1
folder=$(mktemp -d)
mkdir "$folder/models"
model=$folder/models/model.gguf
ok "a model is made" "$SAF" model make "$model" --arch qwen3 --shape 14:1024:16:8:128:3072 \
    --type q8_0 --vocab-size 202048 --seed 1 || tap_exit
ok "it is larger than 600 MB" at_least "$(stat -c %s "$model")" 600000000
# So few tokens that next to nothing but the slices crosses the link.
cat >"$folder/job.cfg" <<END
job = "generate";
model: { path = "$model"; };
input: { prompt = "One"; };
generate: { max_tokens = 2; };
END
words=("$folder/job.cfg")
ok "the job runs alone" "$SAF" run "${words[@]}" "output.file=$folder/alone.h5" || tap_exit
alone=$(fact "$folder/alone.h5" tokens_sha256)
ok "the file is hidden from h2" "$RSH" h2 mount -t tmpfs none "$folder/models"
ok "h2 does not see it" "$RSH" h2 test ! -e "$model"
best=$(socket_rate)
given "h1 h2" layout.pipeline=2
given "h1 h2" layout.tensor=2
given "h1 h2 h2" layout.tensor=3
given "h1 h2 h2" layout.replicas=3 2
tap_exit
