"""The posteriors to try: the program that draws a reference has the density of the model that is fitted."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import initialize_model, potential_energy, transform_fn

from benchmarks.posteriors import POSTERIORS


def values_at(found, data, free):
    """All sites of a program, constrained, at a point of its unconstrained space."""
    return found.postprocess_fn(**data)(free)


def unconstrained(model, found, data):
    """The map from constrained values of the latent sites of a model to unconstrained ones."""
    values = values_at(found, data, found.param_info.z)
    sites = handlers.trace(handlers.seed(handlers.substitute(model, data=values), 0)).get_trace(**data)
    transforms = {name: biject_to(sites[name]["fn"].support) for name in found.param_info.z if name in sites}
    return lambda constrained: transform_fn(transforms, constrained, invert=True)


def differences(posterior, count=2):
    """At some points the log density of the reference's program on its unconstrained scale, and what it is above the
    model's at the same point: with the log Jacobian of the map between their coordinates, a constant."""
    data = posterior.data()
    ours, theirs = (
        initialize_model(jax.random.key(1), model, model_kwargs=data, dynamic_args=True, validate_grad=False)
        for model in (posterior.model, posterior.reference)
    )
    start, unravel = ravel_pytree(theirs.param_info.z)
    inverse = unconstrained(posterior.model, ours, data)
    ravelled = ravel_pytree(ours.param_info.z)[1]

    def mapped(flat):
        values = values_at(theirs, data, unravel(flat))
        return ravel_pytree(inverse({name: values[name] for name in ours.param_info.z}))[0]

    @jax.jit
    def at(flat):
        jacobian = jnp.linalg.slogdet(jax.jacobian(mapped)(flat))[1]
        there = -potential_energy(posterior.reference, (), data, unravel(flat))
        return there, there + potential_energy(posterior.model, (), data, ravelled(mapped(flat))) - jacobian

    points = 0.3 * np.random.default_rng(0).normal(size=(count, len(start)))
    return [tuple(map(float, at(point))) for point in points]


@pytest.mark.slow
@pytest.mark.parametrize("case", POSTERIORS)
def test_the_program_of_the_reference_has_the_density_of_the_model(case):
    with jax.enable_x64(True), numpyro.validation_enabled(False):  # its checks hang on batches of Cholesky factors
        (one, above_one), (two, above_two) = differences(POSTERIORS[case])
    # Far from the data the densities are large, and lose digits to rounding.
    assert abs(above_one - above_two) < 1e-8 * (1 + abs(one)) < 1e-3 * abs(one - two)


@pytest.mark.parametrize("case", POSTERIORS)
def test_data_are_the_same_at_every_call(case):
    first, second = POSTERIORS[case].data(), POSTERIORS[case].data()
    assert all(np.array_equal(first[name], second[name]) for name in first)
