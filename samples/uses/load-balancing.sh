#!/bin/sh
# Dynamic load balancing: by migrating applications to less loaded hosts.
#
# Three jobs were started on one host, and another one has nothing to do. The jobs know nothing of that; they are moved
# while they run, until no host has two more than the other one. The hosts share a disk, on which are the results.
#
#   samples/uses/load-balancing.sh [CRSHIM [PROGRAMS]]
. "$(dirname "$0")/hosts.sh"

# Each host has a processor of its own, if there are two.
all=$(taskset -cp $$ | sed 's/.*: //; s/[,-]/ /g')
cpu_alpha=${all%% *}
cpu_beta=${all##* }

# jobs_on HOST: how many there are, which is its load.
jobs_on() {
    n=0
    for process in $(on_host "$1"); do
        if read -r name <"/proc/$process/comm" && [ "$name" = job ]; then n=$((n + 1)); fi
    done 2>/dev/null
    echo $n
}

# shares: what part of half a second each of the jobs in $jobs had a processor.
shares() {
    for pid in $jobs; do cut -d ' ' -f 1 "/proc/$pid/schedstat"; done >ran.before
    before=$(now)
    sleep 0.5
    elapsed=$(($(now) - before))
    for pid in $jobs; do cut -d ' ' -f 1 "/proc/$pid/schedstat"; done >ran.after
    paste ran.before ran.after | awk -v ms=$elapsed '{ printf "%s%d %%", sep, ($2 - $1) / 10000 / ms; sep = ", " }'
}

say "1. Two hosts: alpha has processor $cpu_alpha, beta processor $cpu_beta. Three jobs are started on alpha."
start_hosts
jobs=''
for n in 1 2 3; do
    show "alpha: job 120 >/srv/out.$n &"
    taskset -c "$cpu_alpha" $(into alpha) sh -c 'exec /programs/job 120 >"/srv/out.$1" </dev/null 2>&1' sh $n &
    jobs="$jobs $!"
    ours $!
done
for n in 1 2 3; do at_round shared/out.$n 2; done
note "jobs: $(jobs_on alpha) on alpha, $(jobs_on beta) on beta; of half a second each had $(shares)"

say '2. As long as alpha has two jobs more than beta, one of them goes there. It computes with the processor of that host:
   --limits caller leaves out that it was bound to the other one.'
while [ $(($(jobs_on alpha) - $(jobs_on beta))) -ge 2 ]; do
    one=${jobs##* }
    move "$one" alpha beta "taskset -c $cpu_beta" --limits caller
    waiting=$job
    jobs="${jobs% *} $moved"
done
[ -n "${moved:-}" ] || fail 'no job was moved'
note "jobs: $(jobs_on alpha) on alpha, $(jobs_on beta) on beta; of half a second each had $(shares)"
[ "$(jobs_on alpha) $(jobs_on beta)" = '2 1' ] || fail 'the load is not what it should be'
[ "$(taskset -cp "$moved" | sed 's/.*: //')" = "$cpu_beta" ] || fail 'the job that was moved is still bound to the processor of alpha'

say '3. All come to their end.'
for pid in ${jobs% *} $waiting; do
    wait "$pid" || fail "a job ended with status $?"
done
for n in 1 2 3; do
    cmp -s shared/out.1 shared/out.$n || fail "job $n did not compute what the one does that nothing was done to"
    note "job $n: $(tail -n 1 shared/out.$n)"
done
say 'Shown: the jobs shared the two hosts, one of them changed over in the midst of its work, and all have the right result.'
