package tests

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// served is a server of callers/serve.c and a client of ours.
type served struct {
	*env
	job  *job
	pid  int
	addr string
	conn net.Conn
	in   *bufio.Reader
	line int

	multipath bool // the client speaks MPTCP
}

// serve starts a server.
func (e *env) serve(family string) *served {
	e.Helper()
	s := &served{env: e}
	s.job = e.start(streams{}, program(e.TB.(*testing.T), glibc, "callers", "serve"), family, "out")
	e.until("it listens", func() bool {
		if s.job.ended() {
			e.Fatal("the server ended")
		}
		return exists(e.path("out"))
	})
	var port int
	if _, err := fmt.Sscan(e.read(e.path("out")), &port, &s.pid); err != nil {
		e.Fatal(err)
	}
	host := map[byte]string{'4': "127.0.0.1", '6': "::1"}[family[0]]
	s.addr = net.JoinHostPort(host, strconv.Itoa(port))
	return s
}

// connect makes us its client.
func (s *served) connect() {
	s.Helper()
	dialer := net.Dialer{KeepAlive: -1}
	dialer.SetMultipathTCP(s.multipath)
	conn, err := dialer.Dial("tcp", s.addr)
	if err != nil {
		s.Fatal(err)
	}
	// No more than that, or the kernel makes room for all that a server sends.
	if is, err := conn.(*net.TCPConn).MultipathTCP(); err != nil || is != s.multipath {
		s.Fatalf("MPTCP: %t, %v", is, err)
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = conn.Close() }) // it may be over
	if err := conn.SetDeadline(s.deadline); err != nil {
		s.Fatal(err)
	}
	s.conn, s.in, s.line = conn, bufio.NewReader(conn), 0
}

func (s *served) say(text string) {
	s.Helper()
	if _, err := io.WriteString(s.conn, text+"\n"); err != nil {
		s.Fatal(err)
	}
}

// hear expects the answer to a line.
func (s *served) hear(text string) {
	s.Helper()
	s.line++
	got, err := s.in.ReadString('\n')
	if want := fmt.Sprintf("%d %s\n", s.line, text); err != nil || got != want {
		s.Fatalf("heard %q (%v), want %q", got, err, want)
	}
}

func (s *served) talk(text string) {
	s.Helper()
	s.say(text)
	s.hear(text)
}

// blasted reads what the server sends for "blast n", and its answer.
func (s *served) blasted(n int) {
	s.Helper()
	chunk := make([]byte, 65536)
	for i := range chunk {
		chunk[i] = byte(i*7 + i>>8)
	}
	for at := 0; at < n; {
		piece := make([]byte, min(n-at, len(chunk)))
		if _, err := io.ReadFull(s.in, piece); err != nil {
			s.Fatalf("read behind %d bytes: %v", at, err)
		}
		if !bytes.Equal(piece, chunk[:len(piece)]) {
			s.Fatalf("the bytes from %d on differ", at)
		}
		at += len(piece)
	}
	s.hear(fmt.Sprintf("blast %d", n))
}

// quiet is longer than an acknowledgement is delayed (TCP_DELACK_MAX, 200 ms,
// by a timer of the kernel). One that came while nobody has the connection
// would be answered by a reset, as docs/sockets.md says.
const quiet = 400 * time.Millisecond

// save saves the server and waits for its end.
func (s *served) save(image string) {
	s.Helper()
	time.Sleep(quiet)
	s.start(streams{}, s.crshim, "checkpoint", "--kill", strconv.Itoa(s.pid), "-o", image).ends("exit status 0")
	s.job.ends("signal: killed")
}

// back restarts it and waits until it is there.
func (s *served) back(image string, flags ...string) {
	s.Helper()
	s.job = s.start(streams{}, append(append([]string{s.crshim, "restart"}, flags...), image)...)
	s.pid = s.restored(s.job, scenario{}, "serve")
}

// held has the server not read while do writes: but for one byte, if it waits
// for that already.
func (s *served) held(do func()) {
	s.Helper()
	s.write(s.path("out.hold"), "")
	do()
}

func (s *served) release() {
	s.Helper()
	s.remove(s.path("out.hold"))
}

// TestTCPKeep: a client outside is served on by a server that was killed and
// restarted meanwhile, and not a byte is lost: of what the server had not read
// yet, of what the client had not, and of what was not even sent.
func TestTCPKeep(t *testing.T) {
	// A server that listens by MPTCP may keep its clients, too, if they speak TCP.
	for _, family := range []string{"4", "6", "6m"} {
		t.Run("IPv"+family, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("needs: CAP_NET_ADMIN")
			}
			needsMPTCP(t, family)
			t.Parallel()
			e := newEnv(t, users()[0])
			s := e.serve(family)
			s.connect()
			s.talk("hello")
			for n := range cycles {
				img := e.nth("img", n)

				s.save(img)
				s.fails(img)
				s.back(img, "--tcp", "keep")
				s.talk("again")

				var long []string
				s.held(func() {
					for i := range 3000 {
						long = append(long, fmt.Sprintf("line %d of many that wait", i))
					}
					s.say(strings.Join(long, "\n"))
				})
				s.save(img)
				s.back(img, "--tcp", "keep")
				s.release()
				for _, line := range long {
					s.hear(line)
				}

				const blast = 12 << 20
				s.say(fmt.Sprintf("blast %d", blast))
				e.until("it waits to write", func() bool { return sleeping(s.pid) && inWrite(s.pid) })
				s.save(img)
				s.back(img, "--tcp", "keep")
				s.blasted(blast)
				s.talk("on")
			}
			if err := s.conn.Close(); err != nil {
				t.Fatal(err)
			}
			s.ended("end")
			s.connect()
			s.talk("a new client")
		})
	}
}

// fails restarts an image that lacks its end, which shows when all is staged:
// of the connection nothing must be seen outside.
func (s *served) fails(image string) {
	s.Helper()
	whole := s.read(image)
	s.write(s.path("cut"), whole[:len(whole)-1])
	j := s.start(streams{}, s.crshim, "restart", "--tcp", "keep", "cut")
	j.ends("exit status 125")
	if !strings.Contains(j.output(), "CR2002") {
		s.Fatalf("failed with %q, want CR2002", j.output())
	}
}

// inWrite tells whether a process is in write(2).
func inWrite(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
	return err == nil && strings.HasPrefix(string(text), "1 ")
}

// ended waits for what the server says of the end of its connection.
func (s *served) ended(how string) {
	s.Helper()
	s.until("the connection ends", func() bool { return exists(s.path("out.end")) })
	if got := s.read(s.path("out.end")); got != how {
		s.Fatalf("connection ended with %q, want %q", got, how)
	}
	s.remove(s.path("out.end"))
}

// TestTCPRunning: a checkpoint does not disturb a connection of a process that
// goes on.
func TestTCPRunning(t *testing.T) {
	for _, family := range []string{"4", "4m"} {
		t.Run("IPv"+family, func(t *testing.T) {
			needsMPTCP(t, family)
			eachUser(t, func(t *testing.T, u user) {
				e := newEnv(t, u)
				s := e.serve(family)
				s.multipath = family == "4m"
				s.connect()
				for n := range cycles {
					s.talk("hello")
					const blast = 8 << 20
					s.say(fmt.Sprintf("blast %d", blast))
					e.until("it waits to write", func() bool { return sleeping(s.pid) && inWrite(s.pid) })
					e.start(streams{}, e.crshim, "checkpoint", strconv.Itoa(s.pid), "-o", e.nth("img", n)).ends("exit status 0")
					s.blasted(blast)
				}
			})
		})
	}
}

// TestTCPReset: by default the server sees its connection broken, and serves
// the next client.
func TestTCPReset(t *testing.T) {
	for _, test := range []struct {
		name, family string
		multipath    bool
	}{{"TCP", "6", false}, {"MPTCP", "6m", true}, {"MPTCP and TCP", "4m", false}} {
		t.Run(test.name, func(t *testing.T) {
			needsMPTCP(t, test.family)
			eachUser(t, func(t *testing.T, u user) {
				e := newEnv(t, u)
				s := e.serve(test.family)
				s.multipath = test.multipath
				for n := range cycles {
					s.connect()
					s.talk("hello")
					s.save(e.nth("img", n))
					s.back(e.nth("img", n))
					s.ended("ECONNRESET")
					if err := s.conn.Close(); err != nil {
						t.Fatal(err)
					}
				}
				s.connect()
				s.talk("a new client")
			})
		})
	}
}

// needsMPTCP skips the test of a server of that family where the kernel has no
// MPTCP.
func needsMPTCP(t *testing.T, family string) {
	t.Helper()
	if !strings.HasSuffix(family, "m") {
		return
	}
	if on, err := os.ReadFile("/proc/sys/net/mptcp/enabled"); err != nil || strings.TrimSpace(string(on)) != "1" {
		t.Skip("needs: net.mptcp.enabled")
	}
}

// TestMPTCPKeepRefused: TCP_REPAIR is there for TCP alone, and that is said.
func TestMPTCPKeepRefused(t *testing.T) {
	needsMPTCP(t, "4m")
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		s := e.serve("4m")
		s.multipath = true
		s.connect()
		s.talk("hello")
		s.save("img")
		j := e.start(streams{}, e.crshim, "restart", "--tcp", "keep", "img")
		j.ends("exit status 125")
		if !strings.Contains(j.output(), "CR2130") {
			t.Fatalf("refused with %q, want CR2130", j.output())
		}
		s.back("img")
		s.ended("ECONNRESET")
	})
}

// TestMPTCPMissing: a server that listened by MPTCP listens by TCP where there
// is no MPTCP, and that is said.
func TestMPTCPMissing(t *testing.T) {
	needsMPTCP(t, "6m")
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		unshare := []string{"unshare", "--user", "--map-current-user", "--keep-caps", "--net", "sh", "-c"}
		if j := e.start(streams{}, append(unshare, "echo 0 >/proc/sys/net/mptcp/enabled")...); j.end() != "exit status 0" {
			t.Skip("needs: user namespaces:", j.output())
		}
		s := e.serve("6m")
		s.save("img")
		j := s.start(streams{}, append(unshare, "echo 0 >/proc/sys/net/mptcp/enabled && exec "+e.crshim+" restart --pidfile log.pid img")...)
		pid := e.pidIn(j, e.path("log.pid"))
		if text := j.output(); !strings.Contains(text, "there is no MPTCP here") {
			t.Errorf("said %q", text)
		}
		_, port, err := net.SplitHostPort(s.addr)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		listens := fmt.Sprintf(":%04X 00000000000000000000000000000000:0000 0A", n)
		if text := e.read(fmt.Sprintf("/proc/%d/net/tcp6", pid)); !strings.Contains(text, listens) {
			t.Errorf("sockets are %q, want one that listens at port %d", text, n)
		}
	})
}

// TestTCPKeepRefused: who may not keep a connection is told so, by name, and
// may still restart without.
func TestTCPKeepRefused(t *testing.T) {
	e := newEnv(t, users()[len(users())-1])
	if e.user.id == 0 {
		t.Skip("needs: another user than root")
	}
	s := e.serve("4")
	s.connect()
	s.talk("hello")
	s.save("img")
	j := e.start(streams{}, e.crshim, "restart", "--tcp", "keep", "img")
	j.ends("exit status 125")
	if !strings.Contains(j.output(), "CR2118") {
		t.Fatalf("refused with %q, want CR2118", j.output())
	}
	s.back("img")
	s.ended("ECONNRESET")
}

// TestPortTaken: a port that somebody else has taken is an error, and no
// process remains.
func TestPortTaken(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		e := newEnv(t, u)
		s := e.serve("4")
		s.save("img")
		l, err := net.Listen("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		j := e.start(streams{}, e.crshim, "restart", "img")
		j.ends("exit status 125")
		if !strings.Contains(j.output(), "CR2115") || !strings.Contains(j.output(), "address already in use") {
			t.Fatalf("refused with %q, want CR2115", j.output())
		}
	})
}
