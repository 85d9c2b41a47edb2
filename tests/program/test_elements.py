"""Plates -> the structure of a block's vector, and a guide by structure in a fit whose posterior it holds."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

import autovi
from autovi.preparation import Options, prepare

PATIENTS, VISITS = 3, 2


def nested(y):
    numpyro.sample("level", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("patients", PATIENTS, dim=-1):
        weight = numpyro.sample("weight", dist.Dirichlet(jnp.ones(3)))
        with numpyro.plate("visits", VISITS, dim=-2):
            effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(effect + weight[..., 0], 1.0), obs=y)
    numpyro.sample("scale", dist.HalfNormal(1.0))


def test_sites_in_the_same_plates_make_a_level():
    y = np.zeros((VISITS, PATIENTS), np.float32)
    engine, _ = prepare(nested, {"y": y}, Options(families={"*": "structured"}))
    program = engine.program
    (block,) = program.plan.blocks
    assert block.sites == ("level", "weight", "effect", "scale")
    structure = program.blocks.layout(block).structure
    np.testing.assert_array_equal(structure.common.array, [0, 1, 14])
    patients, visits = structure.levels
    np.testing.assert_array_equal(patients.index.array, [[2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(visits.index.array, np.arange(8, 14)[:, None])
    (above,) = visits.above
    assert above.level == 0 and patients.above == ()
    np.testing.assert_array_equal(above.element.array, [0, 1, 2, 0, 1, 2])


def test_other_families_have_no_structure():
    y = np.zeros((VISITS, PATIENTS), np.float32)
    engine, _ = prepare(nested, {"y": y}, Options(guide="full_rank", families={"weight": "full_rank"}))
    program = engine.program
    assert all(program.blocks.layout(b).structure is None for b in program.plan.blocks)


A, THETA, PHI, NOISE = 1.5, 0.7, 1.1, 0.5
Y = np.array([[1.2, -0.3, 0.8, 2.1], [0.4, -1.0, 1.1, 1.5]], np.float32)


def hierarchy(y):
    """Normal throughout: given the common value, the elements' pairs (theta, phi) are independent normals."""
    a = numpyro.sample("a", dist.Normal(0.0, A))
    with numpyro.plate("groups", 4):
        theta = numpyro.sample("theta", dist.Normal(a, THETA))
        phi = numpyro.sample("phi", dist.Normal(theta, PHI))
        numpyro.sample("y", dist.Normal(jnp.stack([theta, phi]), NOISE), obs=y)


def test_a_hierarchy_that_it_holds_is_fitted_to_the_evidence():
    inside = np.array([[THETA**2, THETA**2], [THETA**2, THETA**2 + PHI**2]]) + NOISE**2 * np.eye(2)
    evidence = stats.multivariate_normal(np.zeros(8), A**2 + np.kron(inside, np.eye(4))).logpdf(Y.ravel())
    fit = autovi.fit(hierarchy, {"y": Y}, families={"*": "structured"}, num_steps=3000, progress_bar=False)
    assert fit.plan["phi"].family == "structured" and fit.plan["phi"].estimator == "sticking"
    # A bound, without noise where it is reached: sticking the landing ends there but for the last step's size.
    assert evidence - 0.02 < fit.elbo < evidence + 0.005
