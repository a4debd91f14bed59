#!/bin/sh
# Improved response time: by restarting applications from checkpoints instead of from scratch.
#
# A server has to compute what it knows before it can answer. It is saved once it is ready; from then on every start is a
# restart.
#
#   samples/uses/response-time.sh [CRSHIM [PROGRAMS]]
. "$(dirname "$0")/common.sh"

limit=4000000
question=3999971

# answer_after COMMAND...: start a server, and set answer, took (in ms) and server.
answer_after() {
    rm -f sock
    before=$(now)
    "$@" >log 2>&1 &
    server=$!
    ours $server
    answer=$(timeout 60 "$programs/oracle" sock $limit $question) || fail "no answer: $(cat log)"
    took=$(($(now) - before))
}

say '1. From scratch: the server counts all primes up to four million, then it listens. How long until the first answer?'
show "oracle sock $limit &"
show "oracle sock $limit $question"
answer_after "$programs/oracle" sock $limit
scratch=$took right=$answer
note "$answer primes, after $scratch ms"

say '2. Save the server, which is ready and waits in accept(), and end it.'
show "crshim checkpoint --kill $server -o oracle.img"
"$crshim" checkpoint --kill $server -o oracle.img 2>said || fail "checkpoint: $(cat said)"
wait $server 2>/dev/null
note "the image: $(wc -c <oracle.img) bytes"

say '3. From the checkpoint, three times.'
for i in 1 2 3; do
    show 'crshim restart oracle.img &'
    answer_after "$crshim" restart oracle.img
    note "$answer primes, after $took ms"
    [ "$answer" = "$right" ] || fail "the answer was $right"
    [ "$took" -lt "$scratch" ] || fail "that is not faster than $scratch ms"
    # It is to the shell what the server is: the signal reaches that, and it ends as that does.
    kill -TERM $server
    wait $server 2>/dev/null
    [ $? = 143 ] || fail 'the server did not end by SIGTERM'
done

say "Shown: the same answer, $((scratch / took)) times as fast at the last start."
