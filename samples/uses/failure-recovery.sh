#!/bin/sh
# Failure recovery: by rolling back to a previous checkpoint.
#
# A long computation is saved every now and then. It is killed, as by a power cut, and goes on from the last image. The
# result must be that of a run that nothing has happened to.
#
#   samples/uses/failure-recovery.sh [CRSHIM [PROGRAMS]]
. "$(dirname "$0")/common.sh"

say '1. The computation once without any accident, to know the right result.'
show 'job 150 >calm'
"$programs/job" 150 >calm || fail "job ended with status $?"
note "$(tail -n 1 calm)"

say '2. Once more, and this time an image is written every now and then. Each takes the place of the one before, but only
   when it is whole and on disk.'
show 'job 150 >progress &'
"$programs/job" 150 >progress 2>errors &
job=$!
ours $job
show "while sleep 0.2; do crshim checkpoint $job -o img; done &"
while sleep 0.2; do
    reached=$(lines progress)
    "$crshim" checkpoint $job -o img 2>said || break
    echo "$reached" >>saved
done &
saver=$!
ours $saver
until_true "there are two images" has_lines saved 2

say '3. The accident, maybe in the midst of a checkpoint. All that is left is the last image, and the file that was written to.'
show "kill -KILL $job"
kill -KILL $job || fail 'the computation came to its end before the accident'
wait $job 2>/dev/null
wait $saver
died=$(lines progress)
note "it had come to round $died; of $(lines saved) images the last was begun after round $(tail -n 1 saved)"

say '4. Roll back to that image: the program, and its file to the length that it had then.'
show 'crshim restart --files truncate img'
"$crshim" restart --files truncate img || fail "restart ended with status $?"
note "$(tail -n 1 progress)"

grep -q '^result ' calm || fail 'there is no result'
cmp -s calm progress || fail 'the two runs did not write the same'
say "Shown: every line of the two runs agrees, and the result. Of $died rounds at most $((died - $(tail -n 1 saved))) had to be done again."
