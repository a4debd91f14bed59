package tests

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// dialogue is a program between two pipes that stay the same across restarts:
// what it says before it is killed is heard after it is back.
type dialogue struct {
	*job
	pid      int
	in, out  *os.File // its ends
	ask      *os.File // ours
	answered *bufio.Scanner
}

func (e *env) startDialogue(args ...string) *dialogue {
	e.Helper()
	d := &dialogue{}
	var answers *os.File
	d.in, d.ask = e.pipe()
	answers, d.out = e.pipe()
	if err := answers.SetReadDeadline(e.deadline); err != nil {
		e.Fatal(err)
	}
	d.answered = bufio.NewScanner(answers)
	d.job = e.start(streams{In: d.in, Out: d.out}, args...)
	d.pid = d.job.pid()
	return d
}

func (d *dialogue) say(format string, args ...any) {
	d.Helper()
	if _, err := fmt.Fprintf(d.ask, format+"\n", args...); err != nil {
		d.Fatal(err)
	}
}

// hear reads on to a line that contains a text.
func (d *dialogue) hear(text string) {
	d.Helper()
	var heard []string
	for d.answered.Scan() {
		if strings.Contains(d.answered.Text(), text) {
			return
		}
		heard = append(heard, d.answered.Text())
	}
	d.Fatalf("heard %q (%v), not %q", heard, d.answered.Err(), text)
}

// comeBack is done by whoever may choose the process id, whatever the user is
// that the program runs as.
func (d *dialogue) comeBack(n int) {
	d.Helper()
	as := d.user
	d.user = users()[0]
	defer func() { d.user = as }()
	d.start(streams{}, d.crshim, "checkpoint", "--kill", strconv.Itoa(d.pid), "-o", d.nth("img", n)).ends("exit status 0")
	d.ends("signal: killed")
	pidfile := d.nth("log.pid", n)
	d.job = d.start(streams{In: d.in, Out: d.out}, d.crshim, "restart", "--pids", "keep", "--pidfile", pidfile, d.nth("img", n))
	if pid := d.pidIn(d.job, pidfile); pid != d.pid {
		d.Fatalf("the process is %d and was %d", pid, d.pid)
	}
}

// close ends what the program reads.
func (d *dialogue) close() {
	d.Helper()
	if err := d.ask.Close(); err != nil {
		d.Fatal(err)
	}
	d.ends("exit status 0")
}

// inserted is how many rows each transaction inserts: so many that it is still
// about it when it is saved.
const inserted = 200000

// TestSQLiteShell: sqlite3 is saved in the midst of transactions.
func TestSQLiteShell(t *testing.T) {
	sqlite := installed(t, "sqlite3")
	if os.Getuid() != 0 {
		t.Skip("needs: CAP_CHECKPOINT_RESTORE")
	}
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			eachUser(t, func(t *testing.T, u user) {
				d := newEnv(t, u).startDialogue(sqlite, "-batch", "numbers.db")
				d.say("pragma journal_mode = %s; create table numbers (cycle, n);", mode)
				d.hear(mode)
				for n := 1; n <= cycles; n++ {
					d.say("begin; select 'cycle %d';", n)
					d.say("with recursive c(n) as (select 1 union all select n + 1 from c where n < %d) insert into numbers select %d, n from c;",
						inserted, n)
					d.say("select 'inserted'; commit;")
					d.hear(fmt.Sprint("cycle ", n))
					d.comeBack(n)
					d.hear("inserted")
				}
				d.say("pragma integrity_check; select 'found', cycle, count(*), sum(n) from numbers group by cycle order by cycle;")
				d.hear("ok")
				for n := 1; n <= cycles; n++ {
					d.hear(fmt.Sprintf("found|%d|%d|%d", n, inserted, inserted*(inserted+1)/2))
				}
				d.close()
			})
		})
	}
}

// TestPostgreSQL: the server in its single-user mode is saved in the midst of a
// transaction. It refuses to be run by root.
func TestPostgreSQL(t *testing.T) {
	postgres, initdb := installed(t, "postgres"), installed(t, "initdb")
	if os.Getuid() != 0 {
		t.Skip("needs: CAP_CHECKPOINT_RESTORE")
	}
	t.Parallel()
	e := newEnv(t, users()[1])
	e.start(streams{}, initdb, "-D", e.path("data"), "-U", "tester", "-A", "trust", "--no-sync", "--no-locale").ends("exit status 0")
	d := e.startDialogue(postgres, "--single", "-D", e.path("data"), "template1")
	d.say("create table numbers (cycle int, n int primary key)")
	for n := 1; n <= cycles; n++ {
		d.say("begin")
		d.say("select 'cycle %d' as said", n)
		d.say("insert into numbers select %d, n from generate_series(%d, %d) n", n, inserted*(n-1)+1, inserted*n)
		d.say("select 'inserted' as said")
		d.say("commit")
		d.hear(fmt.Sprintf("cycle %d", n))
		d.comeBack(n)
		d.hear("inserted")
	}
	d.say("select 'found ' || count(*) || ' ' || sum(n) || ' ' || count(distinct cycle) as said from numbers")
	all := inserted * cycles
	d.hear(fmt.Sprintf("found %d %d %d", all, all*(all+1)/2, cycles))
	d.close()

	// What it has left is for a server that knows nothing of all this.
	d = e.startDialogue(postgres, "--single", "-D", e.path("data"), "template1")
	d.say("select 'found ' || count(*) as said from numbers")
	d.hear(fmt.Sprint("found ", all))
	d.close()
}
