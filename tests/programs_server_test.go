package tests

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// server is one of several processes. They know each other by number, which
// takes CAP_CHECKPOINT_RESTORE to choose.
type server struct {
	*job
	pid int
}

func startServer(e *env, args ...string) *server {
	e.Helper()
	j := e.start(streams{}, args...)
	return &server{j, j.pid()}
}

// again saves, kills and restarts it, by root.
func (s *server) again(n int) {
	s.Helper()
	as := s.user
	s.user = users()[0]
	defer func() { s.user = as }()
	s.job, s.pid = s.comeBack(n, s.job, s.pid, nil, []string{"--pids", "keep"})
}

// running fails if it has ended, with what it has said.
func (s *server) running() {
	s.Helper()
	if s.ended() {
		s.Fatalf("%v: %s\n%s", s.cmd.Args, s.cmd.ProcessState, s.output())
	}
}

func needsNumbers(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs: CAP_CHECKPOINT_RESTORE")
	}
	t.Parallel()
}

// nginxServer is a master and two workers of another user.
const nginxServer = `daemon off; worker_processes 2; pid nginx.pid; error_log error.log;
events { worker_connections 64; }
http {
	access_log access.log; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	server { listen %s; root files; }
}
`

// TestNginx: after each restart a client gets the file, the master makes a new
// worker for one that was killed, and all end when they are told to.
func TestNginx(t *testing.T) {
	nginx := installedIn(t, "/usr/sbin", "nginx")
	needsNumbers(t)
	e := newEnv(t, users()[0])
	for dir, mode := range map[string]os.FileMode{e.dir: 0o755, e.path("files"): 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	want := strings.Repeat("a file of some length\n", 5000)
	e.write(e.path("files/file"), want)
	if err := os.Chmod(e.path("files/file"), 0o644); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	e.write(e.path("nginx.conf"), fmt.Sprintf(nginxServer, address))
	s := startServer(e, nginx, "-e", e.path("error.log"), "-p", e.dir, "-c", "nginx.conf")
	get := func() (string, error) {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: timeLimit}
		answer, err := client.Get("http://" + address + "/file")
		if err != nil {
			return "", err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return string(body), err
	}
	e.until("nginx is ready", func() bool {
		s.running()
		_, err := get()
		return err == nil
	})
	workers := func() (alive []int) {
		for _, p := range descendants(s.pid) {
			if p.ppid == s.pid && p.state != "Z" {
				alive = append(alive, p.pid)
			}
		}
		return alive
	}
	for n := 1; n <= cycles; n++ {
		s.again(n)
		if got, err := get(); err != nil || got != want {
			t.Fatalf("cycle %d: got %d bytes (%v), want %d", n, len(got), err, len(want))
		}
		old := workers()
		if len(old) != 2 {
			t.Fatalf("workers %v, want two", old)
		}
		e.signal(old[0], unix.SIGKILL)
		e.until("the master makes a new worker", func() bool {
			now := workers()
			return len(now) == 2 && now[0] != old[0] && now[1] != old[0]
		})
	}
	e.signal(s.pid, unix.SIGQUIT)
	s.ends("exit status 0")
}

// installedIn is installed for a program of a directory that is not in the path
// of every user.
func installedIn(t *testing.T, dir, name string) string {
	t.Helper()
	if path := filepath.Join(dir, name); exists(path) {
		return path
	}
	return installed(t, name)
}

// TestPostmaster: PostgreSQL with all its processes, and a client that computes
// over a unix socket and TCP, and connects again.
func TestPostmaster(t *testing.T) {
	postgres, initdb, psql := installed(t, "postgres"), installed(t, "initdb"), installed(t, "psql")
	needsNumbers(t)
	e := newEnv(t, users()[1])
	e.start(streams{}, initdb, "-D", e.path("data"), "-U", "tester", "-A", "trust", "--no-sync", "--no-locale").ends("exit status 0")
	host, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(e, postgres, "-D", e.path("data"), "-k", e.dir, "-c", "listen_addresses="+host, "-p", port)
	query := func(by, text string) (string, string) {
		out := e.create(e.path("answer"), os.O_RDWR|os.O_TRUNC)
		defer out.Close()
		how := e.start(streams{Out: out}, psql, "-h", by, "-p", port, "-U", "tester", "-AtqX", "-v", "ON_ERROR_STOP=1", "-c", text, "postgres").end()
		return strings.TrimSpace(e.read(e.path("answer"))), how
	}
	must := func(by, text, want string) {
		t.Helper()
		if got, how := query(by, text); got != want || how != "exit status 0" {
			t.Fatalf("%s: %q (%s), want %q", text, got, how, want)
		}
	}
	e.until("the server is ready", func() bool {
		s.running()
		_, how := query(e.dir, "select 1")
		return how == "exit status 0"
	})
	must(e.dir, "create table numbers (cycle int, n int primary key)", "")
	for n := 1; n <= cycles; n++ {
		must(e.dir, fmt.Sprintf("insert into numbers select %d, n from generate_series(%d, %d) n", n, 1000*(n-1)+1, 1000*n), "")
		s.again(n)
		all := 1000 * n
		must(host, "select count(*), sum(n), max(cycle) from numbers", fmt.Sprintf("%d|%d|%d", all, all*(all+1)/2, n))
		must(e.dir, "checkpoint", "") // which another process does
		must(e.dir, "vacuum analyze numbers", "")
	}
	e.signal(s.pid, unix.SIGINT)
	s.ends("exit status 0")
}

// TestRedisReplica: a server and its replica below one shell.
func TestRedisReplica(t *testing.T) {
	program := redisProgram(t)
	shell := installed(t, "sh")
	needsNumbers(t)
	e := newEnv(t, users()[0])
	main, replica := freeAddress(t), freeAddress(t)
	port := func(address string) string {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		return port
	}
	e.write(e.path("servers.sh"), fmt.Sprintf("mkdir one two\n%[1]s --bind 127.0.0.1 --port %[2]s --save '' --repl-diskless-sync-delay 0 --dir one &\n"+
		"%[1]s --bind 127.0.0.1 --port %[3]s --save '' --dir two --replicaof 127.0.0.1 %[2]s &\nwait\nwait\n", program, port(main), port(replica)))
	s := startServer(e, shell, "servers.sh")
	ask := func(address, command string) (string, error) {
		conn, err := net.DialTimeout("tcp", address, timeLimit)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return (&redisClient{conn, bufio.NewReader(conn)}).ask(command)
	}
	known := func(n int) {
		t.Helper()
		e.until("the replica knows", func() bool {
			s.running()
			got, err := ask(replica, "STRLEN "+strings.Repeat("k", n))
			return err == nil && got == ":"+strconv.Itoa(n)
		})
	}
	write := func(n int) {
		t.Helper()
		if got, err := ask(main, fmt.Sprintf("SET %s %s", strings.Repeat("k", n), strings.Repeat("v", n))); err != nil || got != "+OK" {
			t.Fatalf("SET: %q (%v)", got, err)
		}
	}
	e.until("the server is ready", func() bool {
		s.running()
		got, err := ask(main, "PING")
		return err == nil && got == "+PONG"
	})
	for n := 1; n <= cycles; n++ {
		write(2*n - 1)
		known(2*n - 1)
		s.again(n)
		write(2 * n)
		known(2*n - 1)
		known(2 * n)
	}
	for _, address := range []string{replica, main} {
		if got, err := ask(address, "SHUTDOWN NOSAVE"); err == nil {
			t.Fatalf("SHUTDOWN: %q", got)
		}
	}
	s.ends("exit status 0")
}
