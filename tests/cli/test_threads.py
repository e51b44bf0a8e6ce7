# SPDX-License-Identifier: MIT
"""A few threads: at most so many at a time, all done at the end, errors where the result is asked for."""

import threading

import pytest

from composeapps.threads import Pool


def test_so_many_at_a_time_and_all_at_the_end():
    # Nobody passes the barrier unless three are at work at a time.
    together, names = threading.Barrier(3), set()

    def work(number):
        together.wait(60)
        names.add(threading.current_thread().name)
        return number * 2

    with Pool(3) as pool:
        results = [pool.begin(work, number) for number in range(9)]
    assert [result() for result in results] == [number * 2 for number in range(9)] and len(names) == 3


def test_one_that_fails_tells_its_own_asker_alone():
    def work(number):
        return 10 // number

    with pytest.raises(KeyError), Pool(2) as pool:
        results = [pool.begin(work, number) for number in (0, 5)]
        raise KeyError
    assert results[1]() == 2
    with pytest.raises(ZeroDivisionError):
        results[0]()


def test_nothing_to_do_starts_no_thread():
    before = threading.active_count()
    with Pool(4):
        assert threading.active_count() == before
