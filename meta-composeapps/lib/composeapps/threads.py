# SPDX-License-Identifier: MIT
"""Doing a few things at a time, without what concurrent.futures brings along: it loads logging at each start."""

import threading
from collections import deque


def each(action, values, most):
    """Call ``action`` for each of some values, ``most`` at a time; return what it returned, in their order.

    Raises the first error, in that order, when all of it is done.
    """
    values = list(values)
    if len(values) < 2:
        return [action(value) for value in values]
    with Pool(min(most, len(values))) as pool:
        ends = [pool.begin(action, value) for value in values]
    return [end() for end in ends]


class Pool:
    """A few threads for what is begun within a ``with``, at the end of which all of it is done.

    Arguments:
        most: how many threads there are at most.
    """

    def __init__(self, most):
        self._most, self._waiting, self._threads = most, deque(), []
        self._idle, self._changed, self._closed = 0, threading.Condition(), False

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def begin(self, action, *values):
        """Have a thread call ``action``; return a function that waits for its end, and returns or raises what it did.
        """
        task = _Task(action, values)
        with self._changed:
            self._waiting.append(task)
            if self._idle < len(self._waiting) and len(self._threads) < self._most:
                self._threads.append(threading.Thread(target=self._work))
                self._threads[-1].start()
            self._changed.notify()
        return task.result

    def _work(self):
        while True:
            with self._changed:
                self._idle += 1
                while not self._waiting and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if not self._waiting:
                    return
                task = self._waiting.popleft()
            task.run()


class _Task:
    def __init__(self, action, values):
        self._action, self._values, self._done = action, values, threading.Event()
        self._value = self._error = None

    def run(self):
        try:
            self._value = self._action(*self._values)
        except BaseException as err:
            self._error = err
        finally:
            self._action = self._values = None
            self._done.set()

    def result(self):
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value
