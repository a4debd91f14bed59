# common.sh - what the seven uses share; each of them begins by reading it.
#
# It sets $crshim and $programs, goes into a directory of its own, and sees to it that no process and no file stays, whatever
# happens: every process that is started in the background is given to "ours".

crshim=$(realpath "${1:-bin/crshim}")
programs=$(realpath "${2:-bin/samples/uses}")
dir=$(mktemp -d "${TMPDIR:-/tmp}/crshim-use.XXXXXX")
pids=''

finish() {
    status=$?
    trap - EXIT
    # By TERM first: crshim restart passes that on to the process that it brought back.
    for process in $pids; do
        pid=${process%:*}
        if same "$process"; then kill -TERM "$pid" && kill -CONT "$pid"; fi
    done 2>/dev/null
    for process in $pids; do
        pid=${process%:*} tries=0
        while same "$process" && ! is_gone "$pid"; do
            tries=$((tries + 1))
            [ "$tries" -lt 50 ] || kill -KILL "$pid"
            sleep 0.02
        done
        wait "$pid"
    done 2>/dev/null
    cd /
    rm -rf --one-file-system "$dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$dir" || exit 1

say() { printf '\n%s\n' "$*"; }
show() { printf '    $ %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
fail() {
    printf '\nNOT SHOWN: %s\n' "$*" >&2
    exit 1
}
# ours PID: a process to be ended at the end, with the time at which it was started: its number may become another one's.
ours() { pids="$1:$(started "$1") $pids"; }
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
same() { [ "$(started "${1%:*}")" = "${1#*:}" ] && [ -n "${1#*:}" ]; }

# until_true WORDS COMMAND...: wait until COMMAND succeeds.
until_true() {
    what=$1
    shift
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "$what: it never came to that"
        sleep 0.05
    done
}

# lines FILE: how many there are.
lines() { if [ -e "$1" ]; then wc -l <"$1"; else echo 0; fi; }

has_lines() { [ "$(lines "$1")" -ge "$2" ]; }
at_round() { until_true "$1 has $2 lines" has_lines "$1" "$2"; }

# is_gone PID: it has ended; a child of ours may still wait to be waited for.
is_gone() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

# milliseconds on some clock.
now() { echo $(($(date +%s%N) / 1000000)); }
