# SPDX-License-Identifier: MIT
"""A sample of scripts/fuzz, and that the harness sees what it is there for."""

import os
import signal
import time

import pytest

from composeapps.errors import UsageError
from fuzz import campaign, command, mutate
from fuzz.targets import TARGETS, Target, plain

SAMPLE = 4000


def test_no_parser_lets_anything_out_but_its_own_errors():
    done, findings = command.run(TARGETS, "sample", SAMPLE, jobs=2)
    assert done >= SAMPLE
    assert [finding.line() for finding in findings] == []


def test_an_input_is_the_same_by_its_number():
    for target in TARGETS:
        one = mutate.make(target.name, target.seeds, "s", 17)
        assert one == mutate.make(target.name, target.seeds, "s", 17)
        assert next(mutate.inputs(target.name, target.seeds, "s", 17)) == (17, one)


@pytest.fixture
def found():
    """Run a function on ten inputs; return what is found."""
    def run(check, refuses=(UsageError,)):
        done, findings = campaign.run(Target("it", plain(check), [b"a: b\n"], refuses), "s", 10)
        assert done == 10
        return [(finding.what, finding.times) for finding in findings]
    return run


def test_what_must_not_come_out_is_seen(found, monkeypatch):
    monkeypatch.setattr(campaign, "WORK", 0.02)

    def refuse(data):
        raise UsageError("no")

    def spin(data):
        end = time.process_time() + 60
        while time.process_time() < end:
            pass

    def fail(data):
        raise KeyError("a")

    assert found(refuse) == []
    assert found(fail) == [("KeyError", 10)]
    assert found(spin) == [("Hang", 10)]
    assert found(refuse, refuses=(ValueError,)) == [("UsageError", 10)]
    assert found(lambda data: bytes(1 << 31)) == [("MemoryError", 10)]
    assert found(lambda data: os.kill(os.getpid(), signal.SIGKILL)) == [("the process ended by SIGKILL", 10)]


def test_a_message_that_is_no_clean_line_is_seen(found):
    def refuse(data):
        raise ValueError("a\x1b[2Jb")

    assert found(refuse, refuses=(ValueError,)) == [("ValueError with a message that is no clean sentence", 10)]
