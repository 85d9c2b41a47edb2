"""Six estimators of different kinds, written as a user would, each in at most 40 lines and none in the table."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import ndtri

from autovi.estimators import Estimator
from autovi.estimators.base import Draw, Rows, refuses_pathwise, refuses_to_list

stop = jax.lax.stop_gradient


def logit_of(q):
    """The logit of a Bernoulli, from its density."""
    one = jnp.ones(q.shape(), int)
    return q.log_prob(one) - q.log_prob(jnp.zeros_like(one))


@dataclass(frozen=True)
class Twin(Estimator):
    """DisARM: (f(b) - f(b')) (-1)^b' 1[b != b'] sigmoid(|logit|) / 2, b' the antithetic twin. Dong et al. (2020)."""

    name: ClassVar[str] = "twin"

    def refuses(self, facts):
        return refuses_to_list(facts) if facts.num_values == 2 else "its support does not have two values"

    def noise(self, rng_key, num_particles, shape):
        return jax.random.uniform(rng_key, (num_particles, *shape))

    def draw(self, noise, q):
        below = jax.nn.sigmoid(-logit_of(q))
        return Draw((noise > below).astype(int), aux=(1 - noise > below).astype(int))

    def surrogate(self, q, draw, cost, params):
        logit = q.over(logit_of)
        sign = jnp.where(draw.value == draw.aux, 0.0, 1.0 - 2.0 * draw.aux)
        half = 0.5 * (cost.value - cost.at(draw.aux)) * sign * jax.nn.sigmoid(jnp.abs(logit))
        return jnp.sum(stop(half) * logit) / cost.value.shape[0], jnp.zeros(())


@dataclass(frozen=True)
class MuProp(Estimator):
    """(f(b) - f(m) - f'(m)(b - m)) d log q + f'(m) dm, m the mean. Gu et al. (2016)."""

    name: ClassVar[str] = "mu_prop"
    relaxed: ClassVar[bool] = True

    def refuses(self, facts):
        return refuses_to_list(facts) if facts.num_values == 2 else "its support does not have two values"

    def draw(self, noise, q):
        return Draw(stop(q(rng_key=noise)).astype(float))

    def surrogate(self, q, draw, cost, params):
        mean = jax.nn.sigmoid(q.over(logit_of))
        at_mean, pull = jax.vjp(cost.at, stop(mean))
        (slope,) = pull(jnp.ones_like(at_mean))
        rest = cost.value - stop(at_mean + slope * (draw.value - mean))
        return jnp.sum(q.log_prob(draw.value) * stop(rest) + stop(slope) * mean) / mean.shape[0], jnp.zeros(())


@dataclass(frozen=True)
class NetworkBaseline(Estimator):
    """The score with a baseline per element: a network of a trained feature of the element. Mnih and Gregor (2014)."""

    name: ClassVar[str] = "network_baseline"

    def refuses(self, facts):
        return None

    @property
    def optimizer(self):
        return optax.adam(0.01)

    def init(self, rng_key, layout):
        feature_key, key = jax.random.split(rng_key)
        features = jax.random.normal(feature_key, (*layout.batch_shape, 3))
        return {"features": Rows(features), "in": jax.random.normal(key, (3, 5)), "out": jnp.linspace(-1.0, 1.0, 5)}

    def draw(self, noise, q):
        return Draw(stop(q(rng_key=noise)))

    def surrogate(self, q, draw, cost, params):
        baseline = jnp.tanh(params["features"].array @ params["in"]) @ params["out"]
        score = q.log_prob(draw.value) * stop(cost.value - baseline)
        return jnp.sum(score) / score.shape[0], jnp.mean((stop(cost.value) - baseline) ** 2)


@dataclass(frozen=True)
class Stratified(Estimator):
    """Pathwise draws by the quantiles of uniforms that share the unit interval among the particles, in random order."""

    name: ClassVar[str] = "stratified"
    pathwise: ClassVar[bool] = True

    def refuses(self, facts):
        return refuses_pathwise(facts) or (None if facts.distribution == "Normal" else "it is no normal")

    def noise(self, rng_key, num_particles, shape):
        within, order = jax.random.split(rng_key)
        strata = jnp.arange(num_particles).reshape(-1, *[1] * len(shape))
        uniform = (strata + jax.random.uniform(within, (num_particles, *shape))) / num_particles
        return ndtri(jnp.clip(jax.random.permutation(order, uniform, independent=True), 1e-7, 1 - 1e-7))

    def draw(self, noise, q):
        return Draw(q.mean + jnp.sqrt(q.variance) * noise)


@dataclass(frozen=True)
class Rebar(Estimator):
    """[f(b) - f(s(z'))] d log q + d f(s(z)) - d f(s(z')), z' the relaxation given b. Tucker et al. (2017)."""

    name: ClassVar[str] = "rebar"
    relaxed: ClassVar[bool] = True

    def refuses(self, facts):
        return refuses_to_list(facts) if facts.num_values == 2 else "its support does not have two values"

    def noise(self, rng_key, num_particles, shape):
        return jax.random.uniform(rng_key, (num_particles, 2, *shape), minval=1e-6, maxval=1 - 1e-6)

    def draw(self, noise, q):
        logit, (u, v) = logit_of(q), noise
        p = jax.nn.sigmoid(logit)
        b = stop(u < p).astype(float)
        given = b * v * p + (1 - b) * (p + v * (1 - p))  # uniform on the part of the interval that gives b
        relax = lambda w: jax.nn.sigmoid((logit - jnp.log(w) + jnp.log1p(-w)) / 0.5)  # noqa: E731
        return Draw(b, aux=(relax(u), relax(given)))

    def surrogate(self, q, draw, cost, params):
        free, bound = (cost.at(relaxed) for relaxed in draw.aux)
        score = q.log_prob(draw.value) * stop(cost.value - bound)
        return jnp.sum(score + free - bound) / score.shape[0], jnp.zeros(())


@dataclass(frozen=True)
class MeasureValued(Estimator):
    """Of a normal, [f(m + s W) - f(m - s W)] / (s sqrt(2 pi)) for m, [f(m + s M) - f(m + s N)] / s for s, where W is
    Rayleigh, M double-sided Maxwell, N normal. Four evaluations. Mohamed et al. (2020), table 1."""

    name: ClassVar[str] = "measure_valued"

    def refuses(self, facts):
        return facts.entangled or (None if facts.distribution == "Normal" else "it is no normal")

    def noise(self, rng_key, num_particles, shape):
        keys, shape = jax.random.split(rng_key, 4), (num_particles, *shape)
        rayleigh = jnp.sqrt(-2 * jnp.log1p(-jax.random.uniform(keys[0], shape)))
        speed = jnp.linalg.norm(jax.random.normal(keys[2], (3, *shape)), axis=0)
        return jax.random.normal(keys[3], shape), rayleigh, jax.random.rademacher(keys[1], shape) * speed

    def draw(self, noise, q):
        normal, rayleigh, maxwell = noise
        m, s = stop(q.mean), stop(jnp.sqrt(q.variance))
        return Draw(m + s * normal, aux=(m + s * rayleigh, m - s * rayleigh, m + s * maxwell, m + s * normal))

    def surrogate(self, q, draw, cost, params):
        mean, scale = q.over(lambda one: (one.mean, jnp.sqrt(one.variance)))
        up, down, wide, near = (stop(cost.at(value)) for value in draw.aux)
        slopes = (up - down) / np.sqrt(2 * np.pi), wide - near
        total = jnp.sum(mean * slopes[0] / stop(scale) + scale * slopes[1] / stop(scale))
        return total / draw.value.shape[0], jnp.zeros(())


WRITTEN = {e.name: e for e in (Twin(), MuProp(), NetworkBaseline(), Stratified(), Rebar(), MeasureValued())}
