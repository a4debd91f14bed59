#!/bin/sh
# Improved service availability and administration: by migrating applications before host maintenance so that they
# continue to run with minimal downtime.
#
# A server keeps everything in memory and has a client that never stops asking. Its host has to be restarted: the server
# goes to another host, and back when that is done. The client connects anew and goes on.
#
#   samples/uses/maintenance.sh [CRSHIM [PROGRAMS]]
. "$(dirname "$0")/hosts.sh"

say '1. Two hosts, alpha and beta; the server is on alpha. A client credits 1, 2, 3 ... to its account there.'
start_hosts
serve_from alpha
start_ledger alpha
show "client $service 7000 anna answers &"
"$programs/client" $service 7000 anna answers &
client=$!
ours $client
at_round answers 20
note "the last answer: $(tail -n 1 answers)   (request, balance, host)"

say '2. Before alpha is taken down the server goes to beta.'
move "$server" alpha beta
serve_from beta
at_round answers $(($(lines answers) + 20))
tail -n 1 answers | grep -q ' beta$' || fail 'the answers do not come from beta'
note "the last answer: $(tail -n 1 answers)"

say '3. Maintenance: alpha is off, and comes up anew. The client notices nothing of that.'
before=$(lines answers)
stop_host alpha
start_host alpha 1
cable
at_round answers $((before + 20))
note "meanwhile $(($(lines answers) - before)) answers from beta"

say '4. Back to alpha.'
move "$moved" beta alpha
serve_from alpha
at_round answers $(($(lines answers) + 20))
tail -n 1 answers | grep -q ' alpha$' || fail 'the answers do not come from alpha'
note "the last answer: $(tail -n 1 answers)"

kill -TERM $client
wait $client || fail "the client ended with status $?: $(tail -n 1 answers)"
note "the client: $(tail -n 1 answers)"
[ "$(hosts_of answers)" = 'alpha beta alpha' ] || fail "the server was on $(hosts_of answers)"
say 'Shown: the server went there and back, no request was lost or done twice, and the client knows how long it waited.'
