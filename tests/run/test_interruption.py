"""Ctrl-C while something runs inside of something else."""

import signal

import pytest

from autovi.run.interruption import Interruption


def test_what_interrupts_the_inner_one_is_told_to_the_outer_one():
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as outer:
        with Interruption() as inner:
            signal.raise_signal(signal.SIGINT)
            assert inner.requested and not outer.requested
        assert outer.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_inner_one_that_ends_by_itself_tells_nothing():
    with Interruption() as outer:
        with Interruption():
            pass
        assert not outer.requested
