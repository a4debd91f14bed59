# hosts.sh - two "hosts" on one machine, for the uses that move a program; read first of all.
#
# A host has a network, a name and a root directory of its own, by namespaces; what it shares with the machine are its
# programs and libraries. Between the two is a cable, and one from each to us, who are the clients. An ordinary user has all
# of this in a user namespace. See unshare(1), nsenter(1), pivot_root(8), ip-link(8).

# Ourselves we leave the machine's network and mounts alone.
if [ "${CRSHIM_USES_APART:-}" != $$ ]; then
    apart='unshare --mount --net'
    [ "$(id -u)" = 0 ] || apart='unshare --user --map-root-user --mount --net'
    command -v ip >/dev/null || { echo 'needs: ip (iproute2)'; exit 77; }
    $apart ip link add left type veth peer name right 2>/dev/null || { echo 'needs: namespaces of networks, and veth'; exit 77; }
    # The pid stays the same: this is exec all the way.
    exec $apart env CRSHIM_USES_APART=$$ sh "$0" "$@"
fi
. "$(dirname "$0")/common.sh"

service=10.80.0.1 # the address that clients know

# start_host NAME NUMBER: leaves the process that holds the host in NAME.pid.
start_host() {
    mkdir -p "root.$1"
    rm -f "root.$1/up"
    unshare --mount --net --uts sh -c '
        set -e
        hostname "$1"
        mount --bind "root.$1" "root.$1"
        cd "root.$1"
        for name in bin sbin lib lib32 lib64 usr etc dev proc sys; do
            if [ -L "/$name" ]; then
                [ -L "$name" ] || cp -P "/$name" .
            elif [ -d "/$name" ]; then
                mkdir -p "$name"
                mount --rbind "/$name" "$name"
            fi
        done
        mkdir -p old tmp var srv programs
        touch crshim
        mount --bind "$2" crshim
        mount --bind "$3" programs
        mount --rbind "$4" srv
        ip link set lo up
        pivot_root . old
        umount -l old
        touch /up
        exec sleep 1000000
    ' sh "$1" "$crshim" "$programs" "$dir/shared" &
    echo $! >"$1.pid"
    ours $!
    until_true "host $1 comes up" [ -e "root.$1/up" ]
    ip link add "to-$1" type veth peer name out netns "$(cat "$1.pid")" || fail "cable to $1"
    ip address add "10.80.$2.1/24" dev "to-$1" && ip link set "to-$1" up || fail "address of the cable to $1"
    on "$1" sh -ec "
        ip address add 10.80.$2.2/24 dev out
        ip link set out up
        ip address add $service/32 dev lo
        ip route add default via 10.80.$2.1"
}

# cable: from alpha to beta.
cable() {
    ip link add next netns "$(cat alpha.pid)" type veth peer name next netns "$(cat beta.pid)" || fail 'cable between the hosts'
    on alpha sh -ec 'ip address add 10.80.9.1/24 dev next; ip link set next up'
    on beta sh -ec 'ip address add 10.80.9.2/24 dev next; ip link set next up'
}

start_hosts() {
    mkdir shared
    start_host alpha 1
    start_host beta 2
    cable
    ip link set lo up
}

# stop_host NAME: with everything that is on it, as by its power button.
stop_host() {
    for process in $(on_host "$1"); do
        kill -KILL "$process" 2>/dev/null
    done
    wait "$(cat "$1.pid")" 2>/dev/null
    ip link delete "to-$1" 2>/dev/null
    rm -f "$1.pid"
}

# into NAME: the words that have a command run there. In the background it is the command itself whose process id $! is.
into() { echo "nsenter --target $(cat "$1.pid") --mount --net --uts"; }

# on NAME COMMAND...: run it there, and wait for its end.
on() {
    host=$1
    shift
    $(into "$host") "$@"
}

# on_host NAME: the processes there.
on_host() {
    net=/proc/$(cat "$1.pid")/ns/net
    for process in /proc/[0-9]*; do
        if [ "$process/ns/net" -ef "$net" ]; then echo "${process#/proc/}"; fi
    done
}

# serve_from NAME: the service's address leads there from now on.
serve_from() {
    case $1 in
    alpha) via=10.80.1.2 ;;
    beta) via=10.80.2.2 ;;
    esac
    ip route replace $service via $via || fail "route to $1"
}

# start_ledger NAME: sets server.
start_ledger() {
    show "$1:  ledger 7000 &"
    $(into "$1") sh -c 'exec /programs/ledger 7000 </dev/null >/dev/null 2>&1' &
    server=$!
    ours $server
}

# hosts_of FILE: who gave the answers that a client wrote there, in order.
hosts_of() { awk 'NF == 3 && $3 != last { printf "%s%s", sep, last = $3; sep = " " }' "$1"; }

# move PID FROM TO [WORDS [OPTION...]]: the image goes over the cable and is nowhere else. PID stays,
# stopped, until the program is on TO: should the move fail it could go on. WORDS begin the command on TO, the options
# are for crshim restart. Sets moved to the process there, and job to our child that ends as it does.
move() {
    leaving=$1 from=$2 to=$3 words=${4:-}
    shift 3
    [ $# = 0 ] || shift
    case $to in
    alpha) peer=10.80.9.1 ;;
    beta) peer=10.80.9.2 ;;
    esac
    rm -f "root.$to/tmp/pid"
    show "$to:  ${words:+$words }tube listen 9000 crshim restart${*:+ $*} - &"
    $words $(into "$to") /programs/tube listen 9000 /crshim restart --pidfile /tmp/pid "$@" - </dev/null &
    job=$!
    ours $job
    show "$from: tube connect $peer 9000 crshim checkpoint --stop $leaving -o -"
    on "$from" /programs/tube connect $peer 9000 /crshim checkpoint --stop "$leaving" -o - 2>said || fail "checkpoint: $(cat said)"
    until_true "the program is on $to" [ -s "root.$to/tmp/pid" ]
    moved=$(cat "root.$to/tmp/pid")
    ours "$moved"
    show "$from: kill -KILL $leaving"
    kill -KILL "$leaving" || fail "process $leaving is gone already"
    until_true "$leaving ends" is_gone "$leaving"
}
