package tests

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// phpPool is a master with two workers of another user.
const phpPool = `[global]
daemonize = no
error_log = %[1]s/error.log
[www]
user = nobody
group = nogroup
listen = %[2]s
pm = static
pm.max_children = 2
`

// phpPage tells who has worked on a request, and what for.
const phpPage = `<?php
$sum = 0;
for ($i = 0; $i < 1000; $i++) $sum += strlen(md5($_SERVER['QUERY_STRING'] . $i));
echo getmypid(), ' ', $_SERVER['QUERY_STRING'], ' ', $sum;
`

// TestPHP: after each restart the workers that there were answer, and the master
// makes a new one for one that was killed.
func TestPHP(t *testing.T) {
	found, err := filepath.Glob("/usr/sbin/php-fpm*")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Skip("needs: php-fpm")
	}
	needsNumbers(t)
	e := newEnv(t, users()[0])
	if err := os.Chmod(e.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	e.write(e.path("pool.conf"), fmt.Sprintf(phpPool, e.dir, address))
	e.write(e.path("page.php"), phpPage)
	if err := os.Chmod(e.path("page.php"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := startServer(e, found[0], "-n", "-y", e.path("pool.conf"))
	workers := func() (alive []int) {
		for _, p := range descendants(s.pid) {
			if p.ppid == s.pid && p.state != "Z" {
				alive = append(alive, p.pid)
			}
		}
		return alive
	}
	ask := func(n int) (worker int, err error) {
		query := "number=" + strconv.Itoa(n)
		answer, err := fastCGI(address, map[string]string{
			"REQUEST_METHOD": "GET", "SCRIPT_FILENAME": e.path("page.php"), "QUERY_STRING": query,
		})
		if err != nil {
			return 0, err
		}
		_, body, _ := strings.Cut(answer, "\r\n\r\n")
		number, rest, _ := strings.Cut(body, " ")
		if rest != query+" 32000" {
			return 0, fmt.Errorf("answer %q", answer)
		}
		return strconv.Atoi(number)
	}
	e.until("the workers are ready", func() bool {
		s.running()
		_, err := ask(0)
		return err == nil && len(workers()) == 2
	})
	for n := 1; n <= cycles; n++ {
		before := workers()
		s.again(n)
		if after := workers(); !slices.Equal(before, after) {
			t.Fatalf("cycle %d: workers %v, were %v", n, after, before)
		}
		worker, err := ask(n)
		if err != nil || !slices.Contains(before, worker) {
			t.Fatalf("cycle %d: worker %d of %v: %v", n, worker, before, err)
		}
		e.signal(worker, unix.SIGKILL)
		e.until("the master makes a new worker", func() bool {
			now := workers()
			return len(now) == 2 && !slices.Contains(now, worker)
		})
		if worker, err = ask(n); err != nil || !slices.Contains(workers(), worker) {
			t.Fatalf("cycle %d: worker %d: %v", n, worker, err)
		}
	}
	e.signal(s.pid, unix.SIGQUIT) // graceful
	s.ends("exit status 0")
}

// fastCGI makes one request, as a web server would
// (https://fastcgi-archives.github.io/FastCGI_Specification.html).
func fastCGI(address string, params map[string]string) (string, error) {
	const begin, end, param, stdin, stdout = 1, 3, 4, 5, 6
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeLimit)); err != nil {
		return "", err
	}
	type header struct {
		Version, Kind   uint8
		Request, Length uint16
		Padding, _      uint8
	}
	var request bytes.Buffer
	record := func(kind uint8, content []byte) {
		_ = binary.Write(&request, binary.BigEndian, header{Version: 1, Kind: kind, Request: 1, Length: uint16(len(content))})
		request.Write(content)
	}
	record(begin, []byte{0, 1, 0, 0, 0, 0, 0, 0}) // as responder
	var pairs bytes.Buffer
	for name, value := range params {
		pairs.WriteByte(byte(len(name)))
		_ = binary.Write(&pairs, binary.BigEndian, uint32(len(value))|1<<31)
		pairs.WriteString(name + value)
	}
	record(param, pairs.Bytes())
	record(param, nil)
	record(stdin, nil)
	if _, err := conn.Write(request.Bytes()); err != nil {
		return "", err
	}
	var answer strings.Builder
	for {
		var h header
		if err := binary.Read(conn, binary.BigEndian, &h); err != nil {
			return "", err
		}
		content := make([]byte, int(h.Length)+int(h.Padding))
		if _, err := io.ReadFull(conn, content); err != nil {
			return "", err
		}
		switch h.Kind {
		case stdout:
			answer.Write(content[:h.Length])
		case end:
			return answer.String(), nil
		}
	}
}
