"""Models and guides with one fault each, for the rows of docs/errors.md."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

Y = np.array([0.5, -0.2, 1.0, 0.3])
DATA = {"y": Y}
TABLE = np.arange(9.0)


def normal(y):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def of_columns(x, y=None):
    w = numpyro.sample("w", dist.Normal().expand([x.shape[1]]).to_event(1))
    with numpyro.plate("n", len(x)):
        numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def grouped(g, y):
    with numpyro.plate("group", 4):
        a = numpyro.sample("a", dist.Normal())
    numpyro.sample("y", dist.Normal(a[g], 1.0), obs=y)


def of_scalars(y, scale):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def halved(x, y=None):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu * x, 1.0), obs=y / 2)


def with_function(y, link):
    normal(link(y))


def using(use):
    """A model that does something with its latent sites, a real and a whole one, and with its data."""

    def model(y):
        mu, k = numpyro.sample("mu", dist.Normal()), numpyro.sample("k", dist.Poisson(3.0))
        use(mu, k, y)
        with numpyro.plate("n", 4):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    return model


def with_if(mu, k, y):
    if mu > 0:
        return mu
    return 0.0


def with_while(mu, k, y):
    while mu > 0:
        mu = mu - 1


def in_place(mu, k, y):
    a = np.zeros(3)
    a[0] = mu


def added_in_place(mu, k, y):
    a = jnp.zeros(3)
    a[0] += mu


USES = {
    "numpy": lambda mu, k, y: np.exp(mu),
    "math": lambda mu, k, y: math.exp(mu),
    "if": with_if,
    "chosen": lambda mu, k, y: mu if mu > 0 else 0.0,
    "chained": lambda mu, k, y: 0 < mu < 1,
    "and": lambda mu, k, y: mu > 0 and mu < 2,
    "while": with_while,
    "float": lambda mu, k, y: float(mu),
    "int": lambda mu, k, y: int(mu),
    "item": lambda mu, k, y: mu.item(),
    "range": lambda mu, k, y: list(range(k)),
    "masked": lambda mu, k, y: y[y > mu],
    "table": lambda mu, k, y: (lambda table: table[k])(TABLE),
    "in place": in_place,
    "added in place": added_in_place,
    "shape": lambda mu, k, y: jnp.arange(k),
}


class Model:
    def __call__(self, y):
        normal(y)


def generator(y):
    yield normal(y)


async def asynchronous(y):
    normal(y)


def returns_early(y):
    if y is not None:
        return
    normal(y)


def all_observed(y):
    numpyro.sample("y", dist.Normal(), obs=y[0])


def unobserved(y=None):
    normal(None)


def random(y):
    mu = numpyro.sample("mu", dist.Normal(np.random.normal(), 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[0])


def random_of_its_own(y):
    mu = numpyro.sample("mu", dist.Normal(np.random.default_rng().normal(), 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[0])


def timed(y):
    mu = numpyro.sample("mu", dist.Normal(time.perf_counter(), 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[0])


def jitted_inside(y):
    jax.jit(normal)(y)


def numbered(y):
    numpyro.sample(3, dist.Normal())


def twice(y):
    for _ in range(2):
        numpyro.sample("a", dist.Normal())


def like_a_plate(y):
    numpyro.sample("n", dist.Normal())
    normal(y)


def one_hash(y):
    a, b = numpyro.sample("plumless", dist.Normal()), numpyro.sample("buckeroo", dist.Normal())
    numpyro.sample("y", dist.Normal(a + b, 1.0), obs=y[0])


def two_sizes(y):
    with numpyro.plate("n", 3):
        numpyro.sample("z", dist.Normal())
    normal(y)


def plated(*sizes, names="nk", dims=(None, None)):
    """A model with plates around its observed site."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal())
        with numpyro.plate(names[0], sizes[0], dim=dims[0]):
            if len(sizes) == 1:
                numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
                return
            with numpyro.plate(names[1], sizes[1], dim=dims[1]):
                numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    return model


def without_plate(y):
    mu = numpyro.sample("mu", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def not_broadcast(y):
    mu = numpyro.sample("mu", dist.Normal().expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(mu + y, 1.0), obs=y)


def sequences(y, size):
    def step(x, now):
        with numpyro.plate("sequence", 6, subsample_size=size) as i:
            x = numpyro.sample("x", dist.Bernoulli(jnp.where(x == 1, 0.8, 0.1)))
            numpyro.sample("y", dist.Normal(x * 1.0, 1.0), obs=now[i])
        return x, None

    scan(step, jnp.zeros(size, int), y)


def rows_that_meet(y):
    w = numpyro.sample("w", dist.Normal())
    with numpyro.plate("rows", 4, subsample_size=2) as index:
        batch = jnp.asarray(y)[index]
        numpyro.sample("y", dist.Normal(w * (batch - batch.mean()), 1.0), obs=batch)


def scaled_by(y, scale):
    mu = numpyro.sample("mu", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def not_finite(y):
    mu = numpyro.sample("mu", dist.Normal())
    numpyro.sample("y", dist.Normal(jnp.sum(y) + mu, 1.0).expand([4]).to_event(1), obs=1e30 * y)


def impossible(y):
    a = numpyro.sample("a", dist.Bernoulli(0.4))
    with numpyro.plate("n", 40):
        b = numpyro.sample("b", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Poisson(2.0 * a * (1 - b)), obs=3)


def counts(y):
    rate = numpyro.sample("rate", dist.LogNormal())
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def latent_trials(y):
    with numpyro.plate("n", 5):
        n = numpyro.sample("N", dist.Geometric(0.05))
        numpyro.sample("y", dist.Binomial(n, 0.4), obs=y)


def summed_trials(y):
    with numpyro.plate("n", 5):
        n = numpyro.sample("N", dist.Categorical(logits=dist.Poisson(20.0).log_prob(jnp.arange(101))))
        numpyro.sample("y", dist.Binomial(n, 0.4), obs=y)


def below(y):
    top = numpyro.sample("top", dist.LogNormal())
    with numpyro.plate("n", 3):
        numpyro.sample("y", dist.Uniform(0.0, top), obs=y)


def mutable(y):
    numpyro.primitives.mutable("count", 0)


def raises(error):
    def model(y):
        numpyro.sample("mu", dist.Normal())
        raise error

    return model


def asked(**said):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(), infer={"autovi": said})
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[0])

    return model


def coupled(y):
    a, b = numpyro.sample("a", dist.Bernoulli(0.4)), numpyro.sample("b", dist.Bernoulli(0.5))
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(a + b + 0.0, 1.0), obs=y)


def summed_indices():
    with numpyro.plate("n", 3):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
    numpyro.factor("f", jnp.sin(1.0 * jnp.sum(z)))


def switched(y):
    z = numpyro.sample("z", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(z + 0.0, 1.0), obs=y[0])


def local(y):
    with numpyro.plate("rows", 4, subsample_size=2) as index:
        z = numpyro.sample("z", dist.Normal())
        numpyro.sample("y", dist.Normal(z, 1.0), obs=jnp.asarray(y)[index])


def positive(y):
    z = numpyro.sample("z", dist.HalfNormal())
    numpyro.sample("y", dist.Normal(z, 1.0), obs=y[0])


def rooted(y):
    z = numpyro.sample("z", dist.Normal())
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(2 * jnp.where(z > 0, jnp.sqrt(z), 0.0), 1.0), obs=y)


def root(loc, scale):
    """A model with a term that is finite on one side."""

    def model():
        x = numpyro.sample("x", dist.Normal(loc, scale))
        numpyro.factor("root", jnp.sqrt(1.0 - x))

    return model


def other(y):
    nu = numpyro.sample("nu", dist.Normal())
    numpyro.sample("y", dist.Normal(nu, 1.0), obs=y[0])


def guide_of(name, fn):
    def guide(y):
        numpyro.sample(name, fn)

    return guide
