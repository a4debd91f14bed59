#!/bin/sh
# Fault resilience: by migrating applications off faulty hosts.
#
# A server keeps everything in memory. Its host begins to fail; whoever watches it has the server moved to another one
# before it dies. Its clients connect anew and go on.
#
#   samples/uses/fault-resilience.sh [CRSHIM [PROGRAMS]]
. "$(dirname "$0")/hosts.sh"

say '1. Two hosts, alpha and beta; the server is on alpha, and has two clients.'
start_hosts
serve_from alpha
start_ledger alpha
clients=''
for name in anna otto; do
    show "client $service 7000 $name $name &"
    "$programs/client" $service 7000 $name $name &
    clients="$clients $!"
    ours $!
done
at_round anna 20
at_round otto 20
note "the last answer to otto: $(tail -n 1 otto)   (request, balance, host)"

say "2. What is known of alpha's health. Somebody looks at it all the time, and does not wait for the end."
echo 'memory: good' >root.alpha/var/health
(
    sleep 0.5
    echo 'memory: 4096 errors corrected, and more every second' >root.alpha/var/health
) &
ours $!
until grep -q errors root.alpha/var/health; do sleep 0.05; done
note "alpha: $(cat root.alpha/var/health)"

say '3. Off with the server, to beta.'
move "$server" alpha beta
serve_from beta

say '4. Alpha is dead, with everything that was on it.'
stop_host alpha
rm -rf --one-file-system root.alpha
asked=$(lines otto)
at_round anna $(($(lines anna) + 20))
at_round otto $((asked + 20))
note "the last answer to otto: $(tail -n 1 otto)"

for client in $clients; do
    kill -TERM "$client"
    wait "$client" || fail "a client ended with status $?: $(tail -qn 1 anna otto)"
done
for name in anna otto; do
    [ "$(hosts_of $name)" = 'alpha beta' ] || fail "$name was served by $(hosts_of $name)"
    note "$name: $(tail -n 1 $name)"
done
say 'Shown: the host is gone, the server is not, and no request was lost or done twice.'
