# Children all the time: pipelines, background jobs and their statuses, substitutions, a coprocess.
# One line in "progress" per round; ends when there is a file "finish", with status 0 if everything was right.
set -u

coproc answers { while read -r n; do echo $((n * n)); done; }

rounds=0
while ((rounds < 3)) || [[ ! -e finish ]]; do
    ((rounds++))
    seq 1 5000 | while read -r n; do echo $((n * rounds)); done | sort -rn | cksum >pipe.sum &
    pipeline=$!
    (sleep 0.1; exit 3) &
    job=$!
    for n in 1 2 3; do
        squares=$(echo "$n" | awk '{ print $1 * $1 }')
        echo "$n" >&"${answers[1]}"
        read -r square <&"${answers[0]}"
        [[ $square == "$squares" ]] || { echo "$n: $square, not $squares"; exit 1; }
    done
    wait "$pipeline" || { echo "pipeline: $?"; exit 1; }
    wait "$job"
    status=$?
    ((status == 3)) || { echo "job: $status"; exit 1; }
    want=$(seq 1 5000 | awk -v r="$rounds" '{ print $1 * r }' | sort -rn | cksum)
    [[ $(<pipe.sum) == "$want" ]] || { echo "$(<pipe.sum), not $want"; exit 1; }
    echo "$rounds" >>progress
done
[[ -z $(jobs -p | grep -v "$answers_PID") ]] || { jobs; exit 1; }
echo "rounds: $rounds"
