package tests

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

// TestGoServer: a server in Go, which listens by MPTCP, is saved with the
// connection of a client that keeps it open, and the client goes on with the
// one that comes back.
func TestGoServer(t *testing.T) {
	eachUser(t, func(t *testing.T, u user) {
		w := startWorking(t, u, "", goProgram(t))
		w.until("it listens", func() bool { return w.ended() || exists(w.path("address")) })
		url := "http://" + w.read(w.path("address"))
		transport := &http.Transport{MaxConnsPerHost: 1}
		defer transport.CloseIdleConnections()
		client := http.Client{Transport: transport}
		last := 0
		ask := func() {
			t.Helper()
			answer, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			var n int
			if _, err := fmt.Fscan(answer.Body, &n); err != nil || n < last {
				t.Fatalf("it has done %d rounds, behind %d: %v", n, last, err)
			}
			if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				t.Fatal(err)
			}
			last = n
		}
		for n := 1; n <= cycles; n++ {
			w.proceeds()
			ask()
			ask()
			w.job, w.pid = w.comeBack(n, w.job, w.pid, nil, nil)
			ask()
		}
		w.finish()
	})
}
