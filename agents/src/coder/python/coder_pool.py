"""Workers: forks of an interpreter that has everything loaded, one for each core, replaced when they die.

Tasks are handed out in order. A worker that does not answer, because a candidate holds it where no signal helps or has
ended the process, is killed; what it was at lies in memory that the parent sees, and the task is given out again with it.
"""

import json
import mmap
import os
import resource
import selectors
import signal
import socket
import sys
import time

from coder_linking import Status

PATIENCE = 1.0
DEATHS = 64


class Worker:
    """A fork, and the way to it."""

    def __init__(self, serve, request):
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.status = Status(self.memory, len(request["functions"]))
        self.here, there = socket.socketpair()
        self.task, self.limit = None, 4 * request["deadline"] + PATIENCE
        self.buffer, self.hung = b"", False
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                self.here.close()
                settle(request["memory_bytes"])
                serve(there.makefile("rwb", buffering=0), self.status)
                status = 0
            finally:
                os._exit(status)
        there.close()

    def give(self, number, task):
        self.task = number
        self.here.sendall(json.dumps(task).encode() + b"\n")

    def hangs(self):
        begun = self.status.read()[0]
        return self.task is not None and begun > 0 and time.monotonic() - begun > self.limit

    def end(self):
        """Kills the worker and returns its most memory, in KiB."""
        self.here.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return os.wait4(self.pid, 0)[2].ru_maxrss


def settle(memory_bytes):
    """Takes a fork away from the parent's streams and limits its memory; what it starts dies with it or alone."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.setrecursionlimit(4000)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20,) * 2)


class Pool:
    """Hands tasks to workers, in order, until all are done or enough is known."""

    def __init__(self, serve, request):
        self.serve, self.request = serve, request
        self.size = request["workers"]
        self.until = time.monotonic() + request["seconds"]
        self.peak = self.deaths = 0
        self.late = False

    def run(self, tasks, mended, enough=lambda results: False):
        """Returns the results by the tasks' number. `mended(task, status, hung)` makes the task that is given out again when a
        worker has died of it, or `None`. Stops when there is `enough`, and when the time is over or too many died."""
        selector, results, waiting = selectors.DefaultSelector(), {}, dict(enumerate(tasks))
        workers = []
        for _ in range(min(self.size, len(waiting))):
            self.enter(selector, workers)
        try:
            while len(results) < len(tasks) and not self.late:
                for worker in workers:
                    if worker.task is None and waiting:
                        number = min(waiting)
                        worker.give(number, waiting[number])
                        tasks[number] = waiting.pop(number)
                for key, _ in selector.select(0.1):
                    self.hear(key.data, results)
                if enough(results):
                    break
                for worker in [each for each in workers if each.task is not None and each.hangs()]:
                    worker.buffer, worker.hung = None, True
                for worker in [each for each in workers if each.buffer is None]:
                    self.leave(selector, workers, worker)
                    self.deaths += 1
                    if worker.task is not None:
                        again = mended(tasks[worker.task], worker.status, worker.hung)
                        if again is not None:
                            waiting[worker.task] = again
                        else:
                            results[worker.task] = None
                    self.enter(selector, workers)
                self.late = time.monotonic() > self.until or self.deaths > DEATHS
        finally:
            for worker in list(workers):
                self.leave(selector, workers, worker)
        return results

    def enter(self, selector, workers):
        worker = Worker(self.serve, self.request)
        selector.register(worker.here, selectors.EVENT_READ, worker)
        workers.append(worker)

    def leave(self, selector, workers, worker):
        selector.unregister(worker.here)
        workers.remove(worker)
        self.peak = max(self.peak, worker.end())

    def hear(self, worker, results):
        """Takes what a worker says; one that says nothing more is dead."""
        try:
            data = worker.here.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            worker.buffer = None
            return
        worker.buffer += data
        if worker.buffer.endswith(b"\n"):
            results[worker.task] = json.loads(worker.buffer)
            worker.buffer, worker.task = b"", None
