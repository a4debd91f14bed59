# Builtins only: no child is ever made. The Collatz sequences and a here-document, arrays, traps and files, in a loop.
# One line in "progress" per round; ends when there is a file "finish", with status 0 if everything was right.
set -u
usr1=0
trap '((usr1++))' USR1

collatz() { # sets steps
    local n=$1
    steps=0
    while ((n != 1)); do
        ((n = n % 2 ? 3 * n + 1 : n / 2, steps++))
    done
}

exec 3>progress 4>steps
declare -A known=()
rounds=0
while ((rounds < 4)) || [[ ! -e finish ]]; do
    ((rounds++))
    for ((i = rounds * 10; i < rounds * 10 + 10; i++)); do
        collatz "$i"
        known[$i]=$steps
        printf '%d %d\n' "$i" "$steps" >&4
    done
    kill -USR1 "$BASHPID" # $$ is of when bash began
    echo "$rounds" >&3
done
exec 4>&-

lines=0
while read -r i steps <&5; do
    ((lines++))
    [[ ${known[$i]} == "$steps" ]] || { echo "$i: ${known[$i]} steps, the file says $steps"; exit 1; }
    was=$steps
    collatz "$i"
    [[ $steps == "$was" ]] || { echo "$i: $steps steps, then it was $was"; exit 1; }
done 5<steps
((lines == rounds * 10 && usr1 == rounds)) || { echo "$lines lines, $usr1 signals in $rounds rounds"; exit 1; }
echo "rounds: $rounds"
