"""The toy mixture of NumPyro's examples, a missing binary covariate, latent classes, and a mixture of normals."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import sigmoid

from benchmarks.discrete_latents.base import Case, Data


def toy(A, C):
    """A -> B -> C, all binary, B hidden. Two counts cannot tell five probabilities: the priors, which in the example
    are those of the simulation only, do."""
    p_A = numpyro.sample("p_A", dist.Beta(1.0, 1.0))
    p_B, p_C = (
        numpyro.sample(name, dist.Beta(jnp.array([2.0, 10.0]), jnp.array([10.0, 2.0])).to_event(1))
        for name in ("p_B", "p_C")
    )
    with numpyro.plate("rows", len(A)):
        numpyro.sample("A", dist.Bernoulli(p_A), obs=A)
        B = numpyro.sample("B", dist.Bernoulli(p_B[A]))
        numpyro.sample("C", dist.Bernoulli(p_C[B]), obs=C)


def toy_data() -> Data:
    """1,000 rows."""
    rng = np.random.default_rng(70)
    A = rng.integers(0, 2, 1000)
    B = (rng.random(1000) < np.array([0.2, 0.85])[A]).astype(int)
    return {"A": A, "C": (rng.random(1000) < np.array([0.1, 0.9])[B]).astype(int)}


def _coefficients():
    return [numpyro.sample(name, dist.Normal(0.0, 2.0)) for name in ("a_0", "a_B", "b_0", "b_A", "b_B")]


def imputed(A, B, y):
    """Logistic regression on a binary A, which depends on B and is missing (-1) for some: the known ones are another
    site, and the mask says whose density counts."""
    a_0, a_B, b_0, b_A, b_B = _coefficients()
    known = A >= 0
    with numpyro.plate("rows", len(y)):
        law = dist.Bernoulli(sigmoid(a_0 + a_B * B))
        missing = numpyro.sample("A_missing", law.mask(~known))
        numpyro.sample("A_known", law.mask(known), obs=jnp.where(known, A, 0))
        value = jnp.where(known, A, missing)
        numpyro.sample("y", dist.Bernoulli(logits=b_0 + b_A * value + b_B * B), obs=y)


def imputed_by_obs_mask(A, B, y):
    """The same with NumPyro's `obs_mask`."""
    a_0, a_B, b_0, b_A, b_B = _coefficients()
    known = A >= 0
    with numpyro.plate("rows", len(y)):
        law = dist.Bernoulli(sigmoid(a_0 + a_B * B))
        value = numpyro.sample("A", law, obs=jnp.where(known, A, 0), obs_mask=known)
        numpyro.sample("y", dist.Bernoulli(logits=b_0 + b_A * value + b_B * B), obs=y)


def imputed_data() -> Data:
    """600 rows; A is missing for a third of them, more often where y is 1."""
    rng = np.random.default_rng(71)
    B = rng.normal(size=600).astype(np.float32)
    A = (rng.random(600) < 1 / (1 + np.exp(0.3 - 0.8 * B))).astype(int)
    y = (rng.random(600) < 1 / (1 + np.exp(0.5 - 1.5 * A + 0.7 * B))).astype(int)
    lost = rng.random(600) < np.where(y == 1, 0.45, 0.25)
    return {"A": np.where(lost, -1, A), "B": B, "y": y}


def latent_class(answers, classes=3):
    """Persons of latent classes answer items; each class is said to solve items of its own more often."""
    persons, items = answers.shape
    own = np.arange(items) % classes == np.arange(classes)[:, None]
    a = jnp.where(jnp.asarray(own), 4.0, 2.0)
    share = numpyro.sample("share", dist.Dirichlet(jnp.full(classes, 2.0)))
    solves = numpyro.sample("solves", dist.Beta(a, 6.0 - a).to_event(2))
    with numpyro.plate("persons", persons, dim=-2):
        c = numpyro.sample("c", dist.Categorical(share))
        with numpyro.plate("items", items, dim=-1) as item:
            numpyro.sample("answer", dist.Bernoulli(solves[c, item]), obs=answers)


def latent_class_data(persons: int = 300, items: int = 9, classes: int = 3) -> Data:
    """Answers of persons of three classes of unequal shares."""
    rng = np.random.default_rng(72)
    own = np.arange(items) % classes == np.arange(classes)[:, None]
    solves = np.where(own, rng.uniform(0.65, 0.9, own.shape), rng.uniform(0.15, 0.5, own.shape))
    share = np.arange(classes, 0, -1) / sum(range(classes + 1))
    c = rng.choice(classes, persons, p=share)
    return {"answers": (rng.random((persons, items)) < solves[c]).astype(np.int32)}


def normals(x, components=3):
    """Points of normals whose locations are said to lie in turn, 4 apart."""
    share = numpyro.sample("share", dist.Dirichlet(jnp.full(components, 2.0)))
    loc = numpyro.sample("loc", dist.Normal(4.0 * jnp.arange(components), 1.0).to_event(1))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5).expand([components]).to_event(1))
    with numpyro.plate("points", len(x)):
        c = numpyro.sample("c", dist.Categorical(share))
        numpyro.sample("x", dist.Normal(loc[c], scale[c]), obs=x)


def normals_data(points: int = 300, components: int = 3) -> Data:
    """Points of components of equal shares, with standard deviations from .7 to 1.3."""
    rng = np.random.default_rng(73)
    c = rng.integers(0, components, points)
    loc, scale = 4.0 * np.arange(components) + 0.5 * rng.normal(size=components), rng.uniform(0.7, 1.3, components)
    return {"x": rng.normal(loc[c], scale[c]).astype(np.float32)}


_REGRESSION = ("a_0", "a_B", "b_0", "b_A", "b_B")
CASES = {
    "toy_mixture": Case(toy, toy_data, ("p_A", "p_B", "p_C"), ("B",)),
    "imputation": Case(imputed, imputed_data, _REGRESSION, ("A_missing",)),
    "imputation_obs_mask": Case(imputed_by_obs_mask, imputed_data, _REGRESSION, ("A_unobserved",), marginal=imputed),
    "latent_class": Case(latent_class, latent_class_data, ("share", "solves"), ("c",)),
    "normals": Case(normals, normals_data, ("share", "loc", "scale"), ("c",)),
}
