# A Redis server with a replica, and redis-benchmark, whose twenty clients count. One line in "progress" in the
# midst of each run of it; ends when there is a file "finish", with status 0 if neither server has lost a count.
# "$1" is the server, "$2" and "$3" the ports.
set -u
mkdir one two
"$1" --bind 127.0.0.1 --port "$2" --save '' --appendonly yes --repl-diskless-sync-delay 0 --dir one >one.log 2>&1 &
one=$!
"$1" --bind 127.0.0.1 --port "$3" --save '' --dir two --replicaof 127.0.0.1 "$2" >two.log 2>&1 &
two=$!
until redis-cli -p "$3" info replication 2>&1 | grep -q master_link_status:up; do
    kill -0 $one && kill -0 $two || { cat one.log two.log; exit 1; }
    sleep 0.1
done
rounds=0
while [ $rounds -lt 3 ] || [ ! -e finish ]; do
    redis-benchmark -p "$2" -q -c 20 -n 20000 incr counter >bench.log 2>&1 &
    bench=$!
    while count=$(redis-cli -p "$2" get counter) && [ "${count:-0}" -le $((rounds * 20000)) ]; do
        kill -0 $bench || { cat bench.log; exit 1; }
    done
    rounds=$((rounds + 1))
    echo $rounds >>progress
    wait $bench || { cat bench.log; exit 1; }
done
redis-cli -p "$2" wait 1 10000 >wait.log
for port in "$2" "$3"; do
    found=$(redis-cli -p "$port" get counter)
    [ "$found" = $((rounds * 20000)) ] || { echo "$port has $found after $rounds rounds"; exit 1; }
done
redis-cli -p "$3" shutdown nosave
redis-cli -p "$2" shutdown
wait $one && wait $two
