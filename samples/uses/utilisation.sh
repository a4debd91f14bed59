#!/bin/sh
# Improved system utilisation: by suspending long running CPU intensive jobs and resuming them when load decreases.
#
# A long job has the processor. Something urgent comes: the job is put away on disk, with all its memory, and goes on
# when the processor is free again.
#
#   samples/uses/utilisation.sh [CRSHIM [PROGRAMS]]
. "$(dirname "$0")/common.sh"

# All on one processor, so that there is something to compete for.
cpu=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')
taskset -cp "$cpu" $$ >/dev/null || fail "taskset ended with status $?"

# urgent FILE: run the urgent job, and set took to the milliseconds of that.
urgent() {
    before=$(now)
    "$programs/job" 25 >"$1" || fail "the urgent job ended with status $?"
    took=$(($(now) - before))
}

# memory PID: what a process has in memory.
memory() { awk '/^VmRSS:/ { print $2, $3 }' "/proc/$1/status"; }

say "1. The long job alone, for its result; the urgent one alone, for its time. All of this is on processor $cpu."
show 'job 80 >calm; job 25'
"$programs/job" 80 >calm || fail "job ended with status $?"
urgent urgent.alone
note "$(tail -n 1 calm); the urgent job takes $took ms"

say '2. The urgent job beside the long one: each has a part of the processor.'
show 'job 80 >long & job 25'
"$programs/job" 80 >long 2>errors &
long=$!
ours $long
at_round long 2
urgent urgent.beside
note "the urgent job takes $took ms"

say '3. The long job put away: its processor and its memory are free.'
note "it has $(memory $long) in memory"
show "crshim checkpoint --kill $long -o long.img; job 25"
"$crshim" checkpoint --kill $long -o long.img 2>said || fail "checkpoint: $(cat said)"
wait $long 2>/dev/null
is_gone $long || fail 'the long job is still there'
suspended=$(lines long)
[ "$suspended" -lt 80 ] || fail 'the long job had come to its end'
urgent urgent.instead
note "the urgent job takes $took ms"
[ "$(lines long)" = "$suspended" ] || fail 'the long job did something while it was put away'

say "4. Load has decreased: the long job goes on after round $suspended."
show 'crshim restart long.img'
"$crshim" restart long.img || fail "restart ended with status $?"
note "$(tail -n 1 long)"

cmp -s calm long || fail 'the long job did not compute what it does undisturbed'
for run in beside instead; do
    cmp -s urgent.alone urgent.$run || fail "the urgent job went wrong ($run)"
done
say 'Shown: the long job was away while the urgent one ran, and has the right result.'
