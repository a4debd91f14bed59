"""A database in WAL mode and one with a rollback journal, each with a writer that is in the midst of a transaction and a
reader with a connection of its own. One line in "progress" per round; ends when there is a file "finish", with status 0 if
both databases are whole and hold what they should."""

import os
import sqlite3
import threading

ROWS = 2000


class Database:
    def __init__(self, mode):
        self.name = mode + ".db"
        self.writer = sqlite3.connect(self.name, isolation_level=None)
        assert self.writer.execute("pragma journal_mode = " + mode).fetchone() == (mode,)
        self.writer.execute("create table numbers (round, n, square)")
        self.writer.execute("create index by_square on numbers (square)")
        self.reader = sqlite3.connect(self.name, isolation_level=None, check_same_thread=False)
        self.rounds = 0

    def insert(self, round):
        self.writer.execute("begin immediate")
        for n in range(ROWS):
            self.writer.execute("insert into numbers values (?, ?, ?)", (round, n, n * n + round))
        self.writer.execute("commit")
        self.rounds = round

    def insert_and_regret(self):
        self.writer.execute("begin immediate")
        self.writer.execute("delete from numbers where n % 2 = 0")
        self.writer.execute("rollback")

    def count(self, found):
        found.append(self.reader.execute("select count(*) from numbers").fetchone()[0])

    def judge(self):
        assert self.reader.execute("pragma integrity_check").fetchall() == [("ok",)]
        rows = self.reader.execute("select round, count(*), sum(square) from numbers group by round order by round").fetchall()
        squares = sum(n * n for n in range(ROWS))
        assert rows == [(r, ROWS, squares + ROWS * r) for r in range(1, self.rounds + 1)], rows
        self.reader.close()
        self.writer.close()


def main():
    databases = [Database("wal"), Database("delete")]
    with open("progress", "w", buffering=1) as progress:
        rounds = 0
        while rounds < 4 or not os.path.exists("finish"):
            rounds += 1
            for d in databases:
                d.insert(rounds)
                d.insert_and_regret()
                found = []
                reading = threading.Thread(target=d.count, args=[found])
                reading.start()
                reading.join()
                assert found == [rounds * ROWS], (rounds, found)
            progress.write("%d\n" % rounds)
    for d in databases:
        d.judge()
    print("rounds:", rounds)


main()
