#!/bin/sh
# Time-travel: by taking periodic checkpoints and restarting from any previous checkpoint.
#
# One run is saved again and again. Then one can go back to each of these moments, in any order, and compare them.
#
#   samples/uses/time-travel.sh [CRSHIM [PROGRAMS]]
. "$(dirname "$0")/common.sh"

say '1. A run, and an image of it every now and then. What is in the file that it writes is saved with it.'
show 'job 100 >out &'
"$programs/job" 100 >out 2>errors &
job=$!
ours $job
for n in 1 2 3; do
    at_round out $((n * 25))
    show "crshim checkpoint --save-files $job -o img.$n         from round $(lines out) on"
    "$crshim" checkpoint --save-files $job -o img.$n 2>said || fail "checkpoint: $(cat said)"
    lines out >at.$n
done
wait $job || fail "job ended with status $?"
mv out history
note "$(tail -n 1 history)"

say '2. Back to each of them, in no order. What was written is not there any more: it comes from the image. From there on
   everything must happen again as it did.'
for n in 2 3 1; do
    [ "$(cat at.$n)" -lt 100 ] || fail "image $n is of the end"
    : >out
    show "crshim restart --files rollback img.$n"
    "$crshim" restart --files rollback img.$n || fail "restart ended with status $?"
    cmp -s history out || fail "from image $n on something else happened"
    note "$(tail -n 1 out), again"
done

say '3. What has changed between two of these moments?'
show 'crshim diff img.1 img.2'
"$crshim" diff img.1 img.2 >difference
[ $? = 1 ] || fail 'diff did not say that they differ'
sed 's/^/    /; s/\(.\{118\}\).*/\1.../' difference
grep -q '^  changed  fd 1 .*FILE_STATE Size: ' difference || fail 'the file that it writes has not changed'
grep -q '^  pages .* changed' difference || fail 'no page of memory has changed'
show 'crshim diff img.2 img.2'
"$crshim" diff img.2 img.2 || fail 'an image differs from itself'

say 'Shown: three moments of one run, all with the same future, and what changed from one to the next.'
