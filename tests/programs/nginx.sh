# nginx with two workers, and wrk, which gets a file from it over connections that stay, slowly. One line in "progress" in
# the midst of each run of wrk, which must hear of no error; ends when there is a file "finish". "$1" is
# nginx, "$2" its port.
set -u
yes 'a file of some length' | head -n 5000 >file
cat >nginx.conf <<END
daemon off; worker_processes 2; pid nginx.pid; error_log error.log;
events { worker_connections 64; }
http {
    access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server { listen 127.0.0.1:$2; root .; limit_rate 400k; }
}
END
"$1" -e error.log -p "$PWD" -c nginx.conf &
server=$!
until [ -s nginx.pid ]; do
    kill -0 $server || { cat error.log; exit 1; }
    sleep 0.1
done
rounds=0
while [ $rounds -lt 3 ] || [ ! -e finish ]; do
    wrk -t 2 -c 8 -d 2 "http://127.0.0.1:$2/file" >wrk.log 2>&1 &
    sleep 0.5
    rounds=$((rounds + 1))
    echo $rounds >>progress
    wait $! || { cat wrk.log; exit 1; }
    grep -q ' requests in ' wrk.log && ! grep -e 'Non-2xx' -e 'Socket errors' -e ' 0 requests in ' wrk.log || { cat wrk.log error.log; exit 1; }
done
kill -QUIT $server
wait $server
