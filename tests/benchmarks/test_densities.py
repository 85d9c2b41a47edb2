"""The sweep over densities in float32, at toy size."""

import pytest

from benchmarks import densities


@pytest.mark.parametrize("name", ["Normal", "Gamma", "TruncatedNormal", "BinomialLogits"])
def test_a_density_is_right_over_the_range_of_its_parameters(name):
    errors = densities.errors_of(name, 40)
    assert set(errors) == {"value", "gradient"} and max(errors.values()) < densities.LISTED


def test_a_density_that_is_wrong_is_seen(monkeypatch):
    monkeypatch.setattr(densities, "log_density", lambda fn, value: fn.log_prob(value))
    assert densities.errors_of("Gamma", 40)["value"] > densities.LISTED
