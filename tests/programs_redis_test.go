package tests

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// redisServer is a Redis server, and what it has been told so far.
type redisServer struct {
	*job
	program string
	pid     int
	address string
	counted int // the counter, as far as clients were told
}

// redisProgram is the server without its service, which is started where the
// package redis-server is installed: one program under several names, of which
// redis-check-rdb is in a package of tools.
func redisProgram(t *testing.T) string {
	t.Helper()
	program := installed(t, "redis-check-rdb")
	name := filepath.Join(work, "bin", "redis-server")
	if err := buildOnce(name, func() error { return os.Symlink(program, name) }); err != nil {
		t.Fatal(err)
	}
	return name
}

func startRedis(t *testing.T, u user) *redisServer {
	t.Helper()
	r := &redisServer{program: redisProgram(t), job: &job{env: newEnv(t, u)}, address: freeAddress(t)}
	r.run()
	return r
}

// run starts the server. Of its threads three work in the background: they
// write, close files and free memory.
func (r *redisServer) run() {
	r.Helper()
	_, port, err := net.SplitHostPort(r.address)
	if err != nil {
		r.Fatal(err)
	}
	r.job = r.start(streams{}, r.program, "--port", port, "--bind", "127.0.0.1", "--unixsocket", r.path("redis.sock"), "--save", "",
		"--appendonly", "yes", "--appendfsync", "everysec", "--dir", r.dir)
	r.pid = r.job.pid()
	r.until("the server is ready", func() bool {
		if r.ended() {
			r.Fatalf("redis-server: %s", r.output())
		}
		conn, err := net.Dial("tcp", r.address)
		if err != nil {
			return false
		}
		defer conn.Close()
		c := &redisClient{conn, bufio.NewReader(conn)}
		got, err := c.ask("PING")
		return err == nil && got == "+PONG" // and not that it is still loading
	})
}

// freeAddress is one of the loopback interface at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// redisClient speaks the protocol of Redis in its inline form, for answers of
// one line.
type redisClient struct {
	net.Conn
	lines *bufio.Reader
}

func (r *redisServer) dial(network, address string) *redisClient {
	r.Helper()
	conn, err := net.DialTimeout(network, address, time.Until(r.deadline))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = conn.Close() }) // may be closed already
	if err := conn.SetDeadline(r.deadline); err != nil {
		r.Fatal(err)
	}
	return &redisClient{conn, bufio.NewReader(conn)}
}

func (c *redisClient) ask(command string) (string, error) {
	if _, err := fmt.Fprint(c, command, "\r\n"); err != nil {
		return "", err
	}
	line, err := c.lines.ReadString('\n')
	return strings.TrimSpace(line), err
}

// increment has the server count n times and knows what comes out.
func (r *redisServer) increment(c *redisClient, n int) {
	r.Helper()
	for range n {
		r.counted++
		if got, err := c.ask("INCR counter"); err != nil || got != ":"+strconv.Itoa(r.counted) {
			r.Fatalf("INCR: %q (%v), want %d", got, err, r.counted)
		}
	}
}

// judge ends the server and looks what a new one finds in the file that this one
// has kept.
func (r *redisServer) judge() {
	r.Helper()
	c := r.dial("unix", r.path("redis.sock"))
	// It has no answer but the end of the connection.
	if got, err := c.ask("SHUTDOWN"); err == nil {
		r.Fatalf("SHUTDOWN: %q", got)
	}
	r.ends("exit status 0")
	r.run()
	r.increment(r.dial("tcp", r.address), 1)
	r.signal(r.pid, unix.SIGTERM)
	r.ends("exit status 0")
}

// TestRedis: a server that counts for clients is saved, killed and made again.
// A connection of TCP to outside is reset, unless it is kept.
func TestRedis(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		r := startRedis(t, u)
		for n := 1; n <= cycles; n++ {
			c := r.dial("tcp", r.address)
			r.increment(c, 100)
			r.job, r.pid = r.comeBack(n, r.job, r.pid, nil, nil)
			if got, err := c.ask("PING"); err == nil {
				t.Fatalf("a connection lives on after its reset: %q", got)
			}
			r.increment(r.dial("tcp", r.address), 100)
		}
		r.judge()
	})
}

func TestRedisKeepsConnections(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs: CAP_NET_ADMIN")
	}
	r := startRedis(t, users()[0])
	c := r.dial("tcp", r.address)
	for n := 1; n <= cycles; n++ {
		r.increment(c, 100)
		time.Sleep(quiet) // until the client has acknowledged all, as in TestTCPKeep
		r.job, r.pid = r.comeBack(n, r.job, r.pid, nil, []string{"--tcp", "keep"})
	}
	r.increment(c, 100)
	r.judge()
}

// TestRedisUnixClient: a client from outside at a unix socket is refused, unless
// something is to take its place: here what looks as if the client had left.
func TestRedisUnixClient(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		r := startRedis(t, u)
		c := r.dial("unix", r.path("redis.sock"))
		r.increment(c, 100)
		refused := r.start(streams{}, r.crshim, "checkpoint", strconv.Itoa(r.pid), "-o", r.path("img"))
		refused.ends("exit status 1")
		about := regexp.MustCompile(`CR12\d\d cannot save fd (\d+) of `).FindStringSubmatch(refused.output())
		if about == nil {
			t.Fatalf("refused with %q", refused.output())
		}
		r.increment(c, 100)
		r.job, r.pid = r.comeBack(1, r.job, r.pid, []string{"--external"}, []string{"--fd", about[1] + "=hangup"})
		r.until("the server drops the client", func() bool { return !exists(fmt.Sprintf("/proc/%d/fd/%s", r.pid, about[1])) })
		if got, err := c.ask("PING"); err == nil {
			t.Fatalf("a connection lives on after the server: %q", got)
		}
		r.increment(r.dial("unix", r.path("redis.sock")), 100)
		r.judge()
	})
}
