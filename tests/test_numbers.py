"""Numbers as they are said."""

import doctest

import numpy as np
import pytest

from autovi import numbers
from autovi.numbers import how_many, nats, number, with_error


def test_examples_in_the_docstrings():
    tried = doctest.testmod(numbers)
    assert (tried.failed, tried.attempted) == (0, 4)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"),
        (1e-4, "0.0001"),
        (9.9e-5, "less than 0.0001"),
        (-1e-9, "less than 0.0001"),
        (0.00123, "0.0012"),
        (0.0999, "0.1"),
        (1.2345678, "1.2"),
        (99.9, "100"),
        (1234.5, "1,200"),
        (999_999, "1 million"),
        (1.26e9, "1.3 billion"),
        (-5.4e11, "-540 billion"),
        (3.4e80, "more than 10^80"),
        (-3.4e80, "less than -10^80"),
        (np.inf, "infinity"),
        (-np.inf, "minus infinity"),
        (np.nan, "NaN"),
        (np.float32(0.25), "0.25"),
    ],
)
def test_numbers(value, said):
    assert number(value) == said


def test_counts_and_nats():
    assert (how_many(1, "step"), how_many(0, "step"), how_many(12_345)) == ("1 step", "0 steps", "12,345")
    assert (nats(1.04), nats(1.1), nats(np.inf)) == ("1 nat", "1.1 nats", "infinitely many nats")


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (12345.678, 0.0196, ("12,345.678", "0.020")),
        (-5_123_456.71, 3.24, ("-5,123,456.7", "3.2")),
        (1234.5, 120.0, ("1,234", "120")),
        (-0.00001, 0.0064, ("0.0000", "0.0064")),
        (-31.4159265, 1e-7, ("-31.4159", "less than 0.0001")),
        (-31.4159265, 0.0, ("-31.4159", "0")),
        (2.5, np.nan, ("2.5", "NaN")),
        (3.4e80, 1.0, ("more than 10^80", "1")),
    ],
)
def test_a_number_with_its_error(value, error, said):
    assert with_error(value, error) == said
