# PostgreSQL with all its processes, and pgbench twice with two clients in two threads, by TCP and by a unix socket. Both
# write lines into "progress" in the midst of their transactions; ends when there is a file "finish", with status 0 if none
# has failed and the accounts agree with their history. In "$1" are the programs, which refuse to be root; "$2" is the port.
set -u
PATH=$1:$PATH
export PGDATA=$PWD/data PGUSER=tester PGDATABASE=postgres PGPORT=$2
initdb -U tester -A trust --no-sync --no-locale >init.log || exit 1
postgres -k "$PWD" -c listen_addresses=127.0.0.1 >server.log 2>&1 &
server=$!
until pg_isready -q -h "$PWD"; do
    kill -0 $server || { cat server.log; exit 1; }
    sleep 0.1
done
pgbench -h "$PWD" -i -q >init.log 2>&1 || { cat init.log; exit 1; }
echo '\shell echo >>progress' >mark
benches=
for host in 127.0.0.1 "$PWD"; do
    # What ends a run of limited time is a signal.
    pgbench -h "$host" -n -c 2 -j 2 -T 3600 --rate 100 -b tpcb-like@9 -f mark@1 >"bench.${host##*/}" 2>&1 &
    benches="$benches $!"
done
until [ -e finish ]; do
    kill -0 $benches || { cat bench.* server.log; exit 1; }
    sleep 0.1
done
kill -ALRM $benches
for bench in $benches; do
    wait "$bench" || { cat bench.* server.log; exit 1; }
done
[ "$(cat bench.* | grep -c '^number of failed transactions: 0 ')" = 2 ] || { cat bench.*; exit 1; }
made=$(($(cat bench.* | sed -n 's/^number of transactions actually processed: //p' | paste -s -d +)))
marks=$(wc -l <progress)
found=$(psql -h "$PWD" -AtqX -c "
    select count(distinct sum), (select count(*) from pgbench_history) from (
        select sum(abalance) from pgbench_accounts union all select sum(tbalance) from pgbench_tellers
        union all select sum(bbalance) from pgbench_branches union all select sum(delta) from pgbench_history) sums")
[ "$found" = "1|$((made - marks))" ] || { echo "found $found of $made less $marks"; exit 1; }
kill -INT $server
wait $server
