"""Processes of multiprocessing: pools by fork and by spawn, with a lock, a queue and memory that they share.

One line in "progress" per round; ends when there is a file "finish", with status 0 if everything was right."""

import hashlib
import multiprocessing
import os

ROUNDS_AT_LEAST = 3


def digest(n):
    h = b"%d" % n
    for _ in range(300):
        h = hashlib.sha256(h).digest()
    return h


def prepare(shared):
    global count
    count = shared


def work(n):
    with count.get_lock():
        count.value += n
    return n, digest(n)


def echo(requests, answers):
    for n in iter(requests.get, None):
        answers.put(-n)


def main():
    with open("progress", "w", buffering=1) as progress:
        rounds = 0
        while rounds < ROUNDS_AT_LEAST or not os.path.exists("finish"):
            context = multiprocessing.get_context(["fork", "spawn"][rounds % 2])
            rounds += 1
            count = context.Value("q", 0)
            requests, answers = context.Queue(), context.Queue()
            helper = context.Process(target=echo, args=[requests, answers])
            helper.start()
            with context.Pool(3, prepare, [count]) as pool:
                found = dict(pool.imap_unordered(work, range(100)))
            del pool  # or the processes of the next one share what this one has dropped then, which is refused
            assert found == {n: digest(n) for n in range(100)}
            assert count.value == sum(range(100)), count.value
            for n in range(20):
                requests.put(n)
                assert answers.get() == -n
            requests.put(None)
            helper.join()
            assert helper.exitcode == 0, helper.exitcode
            progress.write("%d\n" % rounds)


if __name__ == "__main__":
    main()
