#!/usr/bin/env bash
# The whole point of crshim in half a minute: a program that knows nothing of checkpoints is saved while it runs, killed,
# and brought back; then a program that saves itself. Everything that is claimed is compared; the exit status is 0 only
# if all of it agreed.
#
#   samples/demo.sh CRSHIM SAMPLES     (make demo)
set -eu

# Descriptors that whoever started this has left open (some terminals and build systems do) would be in the programs
# too, and a pipe among them is refused.
for fd in /proc/self/fd/*; do
    case ${fd##*/} in
    0 | 1 | 2 | 255) ;; # 255 is this script
    *) eval "exec ${fd##*/}>&-" ;;
    esac
done

crshim=$(realpath "${1:-bin/crshim}")
samples=$(realpath "${2:-bin/samples}")
dir=$(mktemp -d "${TMPDIR:-/tmp}/crshim-demo.XXXXXX")
pids=''

# Whatever happens, no process and no file of ours stays.
finish() {
    status=$?
    trap - EXIT
    for pid in $pids; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n%s\n' "$*"; }
show() { printf '    $ %s\n' "$*"; }
fail() {
    printf '\nDEMO FAILED: %s\n' "$*" >&2
    exit 1
}

# wait_lines FILE N: until FILE has N lines; a program that does not get there is a failure.
wait_lines() {
    tries=0
    while [ "$(wc -l <"$1" 2>/dev/null || echo 0)" -lt "$2" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "$1 never had $2 lines"
        sleep 0.1
    done
}

# ended PID: wait for a process that is not our child to be gone.
ended() {
    tries=0
    while kill -0 "$1" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "process $1 does not end"
        sleep 0.1
    done
}

# below PID: every process that descends from it.
below() {
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do
        echo "$child"
        below "$child"
    done
}

# counter_pid PID: the counting program below a crshim run.
counter_pid() {
    tries=0
    while :; do
        for descendant in $(below "$1"); do
            if [ "$(cat "/proc/$descendant/comm" 2>/dev/null)" = test ]; then
                echo "$descendant"
                return
            fi
        done
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || return 1
        sleep 0.1
    done
}

# beside LEFT RIGHT: print two files side by side, and which lines agree.
beside() {
    paste "$1" "$2" | awk -F '\t' '
        BEGIN { printf "    %-26s %s\n", "FIRST LIFE", "SECOND LIFE" }
        { printf "    %-26s %-26s %s\n", $1, $2, $1 == $2 ? "same" : "differs" }'
}

cd "$dir"
say "1. A program that counts, with numbers that only come out right if its memory, its file offset and its floating
   point registers are all right. It knows nothing of checkpoints."
show 'crshim run ./test count 100 25 &'
"$crshim" run "$samples/test" "$dir/count" 100 25 &
run=$!
pids="$run"
pid=$(counter_pid "$run") || fail 'the program did not start'
pids="$pid $pids"
wait_lines count 6
tail -n 2 count | sed 's/^/    /'

say "2. Save it from outside. It is stopped for a moment, so that the image and a copy of its file are of the same one."
show "kill -STOP $pid; crshim checkpoint $pid -o img; cp count count.then; kill -CONT $pid"
kill -STOP "$pid"
"$crshim" checkpoint "$pid" -o img 2>said || fail "checkpoint: $(cat said)"
cp count count.then
kill -CONT "$pid"
sed 's/^/    /' said
echo "    the image: $(wc -c <img) bytes, after line $(wc -l <count.then)"

say "3. Let it run on for a while, then kill it. What it wrote is kept; of the program nothing is left but the image."
wait_lines count 14
show "kill -KILL $pid"
kill -KILL "$pid"
wait "$run" 2>/dev/null && fail 'a program that was killed ended with status 0'
pids=''
ended "$pid"
cp count count.first
tail -n 1 count.first | sed 's/^/    /'

say "4. Put the file back as it was, and bring the program back. It goes on in the middle of its loop, to its end."
show 'cp count.then count; crshim restart img'
cat count.then >count
"$crshim" restart img || fail "restart ended with status $?"
grep -q '^world, hello' count || fail 'the restarted program did not come to its end'

say "5. What it wrote in its first life, and in its second one, as far as the first one came. Every line must agree:"
head -n "$(wc -l <count.first)" count >count.second
beside count.first count.second
cmp -s count.first count.second || fail 'the two outputs differ'

say "6. The other way round: a program that saves itself. crid = checkpoint(getpid(), fd, 0) returns a positive number,
   and 0 in the process that comes back: that line alone differs."
show 'crshim run ./self count2 100 12 > self.image'
"$crshim" run "$samples/self" "$dir/count2" 100 12 >self.image || fail 'self'
cp count2 count2.first
# The image was taken after the line "count 2": that is where its file has to be cut.
sed '/^count 2 /q' count2.first >count2
show 'crshim run ./rstr < self.image'
"$crshim" run "$samples/rstr" <self.image || fail 'rstr'
beside count2.first count2
grep -q 'checkpoint ret: [1-9]' count2.first || fail 'checkpoint() did not return a positive id'
grep -q 'checkpoint ret: 0' count2 || fail 'checkpoint() did not return 0 after the restart'
grep -v 'checkpoint ret' count2.first >a
grep -v 'checkpoint ret' count2 >b
cmp -s a b || fail 'the two outputs of self differ'

say "All of it agreed."
