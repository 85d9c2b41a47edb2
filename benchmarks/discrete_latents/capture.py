"""Cormack-Jolly-Seber models of the shapes of NumPyro's `capture_recapture`: who of the marked animals is still alive.

An animal alive at one occasion survives to the next with probability phi, and is then seen with probability rho; the
dead stay dead, which has probability one. Occasions up to the first capture do not count: their observations are
masked, and the animal lives. (The examples mask its state as well. Summed out, a masked state counts with both
values: an animal may be dead when it is first caught. That is `masked`.)
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.nn import sigmoid
from jax.scipy.special import logit
from numpyro.contrib.control_flow import scan
from numpyro.handlers import mask, reparam
from numpyro.infer.reparam import LocScaleReparam

from benchmarks.discrete_latents.base import Case, Data
from benchmarks.discrete_latents.forwards import captures

ANIMALS, OCCASIONS = 200, 9


def _uniform(*names):
    found = [numpyro.sample(name, dist.Uniform(0.0, 1.0)) for name in names]
    return found if len(found) > 1 else found[0]


def _step(alive, marked, seen, phi, rho, suffix="", masks=False):
    """One occasion of all animals: who survives, and who is seen."""
    with numpyro.plate(f"animals{suffix}", len(seen)):
        with mask(mask=marked if masks else jnp.ones_like(marked)):
            alive = numpyro.sample(f"z{suffix}", dist.Bernoulli(jnp.where(marked, phi * alive, 1.0)))
        with mask(mask=marked):
            numpyro.sample(f"y{suffix}", dist.Bernoulli(rho * alive), obs=seen)
    return alive


def _occasions(history, survival, masks=False):
    """All occasions in `scan`; `survival()` is called at each, and may have sites of its own."""
    rho = _uniform("rho")

    def body(carry, seen):
        alive, marked = carry
        alive = _step(alive, marked, seen, survival(), rho, masks=masks)
        return (alive, marked | (seen == 1)), None

    start = jnp.ones(len(history), int), jnp.asarray(history[:, 0] == 1)
    scan(body, start, jnp.swapaxes(jnp.asarray(history[:, 1:]), 0, 1))


def constant(history):
    """Model 1: one survival probability."""
    phi = _uniform("phi")
    _occasions(history, lambda: phi)


def constant_by_hand(history):
    """The same without states."""
    captures(history, *_uniform("phi", "rho"))


def masked(history):
    """Model 1 with its states masked, too."""
    phi = _uniform("phi")
    _occasions(history, lambda: phi, masks=True)


def masked_by_hand(history):
    """The same without states."""
    captures(history, *_uniform("phi", "rho"), masked_states=True)


def by_time(history):
    """Model 2: one for every interval."""
    _occasions(history, lambda: _uniform("phi"))


def by_time_by_hand(history):
    """The same without states."""
    phi = numpyro.sample("phi", dist.Uniform(0.0, 1.0).expand([history.shape[1] - 1]).to_event(1))
    captures(history, phi[:, None], _uniform("rho"))


def _around():
    mean = _uniform("phi_mean")
    return logit(mean), numpyro.sample("phi_sigma", dist.Uniform(0.0, 10.0))


def random_by_time(history):
    """Model 3: one for every interval, around a mean on the logit scale."""
    mean, sigma = _around()

    def survival():
        with reparam(config={"phi_logit": LocScaleReparam(0)}):
            return sigmoid(numpyro.sample("phi_logit", dist.Normal(mean, sigma)))

    _occasions(history, survival)


def random_by_time_by_hand(history):
    """The same without states."""
    mean, sigma = _around()
    noise = numpyro.sample("noise", dist.Normal(0.0, 1.0).expand([history.shape[1] - 1]).to_event(1))
    captures(history, sigmoid(mean + sigma * noise)[:, None], _uniform("rho"))


def _of(sex):
    male, female = _uniform("phi_male", "phi_female")
    return jnp.where(sex == 1, male, female)


def by_sex(history, sex):
    """Model 4: one for each sex."""
    phi = _of(sex)
    _occasions(history, lambda: phi)


def by_sex_by_hand(history, sex):
    """The same without states."""
    captures(history, _of(sex), _uniform("rho"))


def by_sex_and_time(history, sex):
    """Model 5: on the logit scale a difference of the sexes, and an effect of every interval. (Of scale 2; with the
    example's 10 an interval that all may have survived has a tail that NUTS does not explore.)"""
    beta = numpyro.sample("phi_beta", dist.Normal(0.0, 2.0)) * sex
    _occasions(history, lambda: sigmoid(beta + numpyro.sample("phi_gamma", dist.Normal(0.0, 2.0))))


def by_sex_and_time_by_hand(history, sex):
    """The same without states."""
    beta = numpyro.sample("phi_beta", dist.Normal(0.0, 2.0)) * sex
    gamma = numpyro.sample("phi_gamma", dist.Normal(0.0, 2.0).expand([history.shape[1] - 1]).to_event(1))
    captures(history, sigmoid(beta + gamma[:, None]), _uniform("rho"))


def unrolled(history):
    """Model 1 again, its occasions in a Python loop."""
    phi, rho = _uniform("phi", "rho")
    alive, marked = jnp.ones(len(history), int), jnp.asarray(history[:, 0] == 1)
    for t in range(1, history.shape[1]):
        alive = _step(alive, marked, history[:, t], phi, rho, f"_{t}")
        marked = marked | (history[:, t] == 1)


def histories(seed: int, by_sex: float = 0.0, by_time: float = 0.0, with_sex: bool = False) -> Data:
    """Animals first caught at any occasion but the last; effects on the logit of their survival."""
    rng = np.random.default_rng(seed)
    sex = rng.integers(0, 2, ANIMALS)
    first = rng.integers(0, OCCASIONS - 1, ANIMALS)
    effect = by_time * rng.normal(size=OCCASIONS - 1)
    alive, history = np.ones(ANIMALS, bool), np.zeros((ANIMALS, OCCASIONS), np.int32)
    history[np.arange(ANIMALS), first] = 1
    for t in range(1, OCCASIONS):
        survives = rng.random(ANIMALS) < 1 / (1 + np.exp(-(0.8 + effect[t - 1] + by_sex * sex)))
        alive &= survives | (t <= first)
        history[:, t] |= alive & (t > first) & (rng.random(ANIMALS) < 0.7)
    return {"history": history} | ({"sex": sex} if with_sex else {})


def _case(model, by_hand, seed, scored, discrete=("z",), loops=True, **effects):
    return Case(model, lambda: histories(seed, **effects), scored, discrete, by_hand, loops, target_accept=0.9)


_MEAN, _SEX = ("phi_mean", "phi_sigma", "rho"), {"by_sex": -0.6, "with_sex": True}
CASES = {
    "capture_1": _case(constant, constant_by_hand, 61, ("phi", "rho")),
    "capture_2": _case(by_time, by_time_by_hand, 62, ("phi", "rho"), by_time=0.5),
    "capture_3": _case(random_by_time, random_by_time_by_hand, 63, _MEAN, by_time=0.6),
    "capture_4": _case(by_sex, by_sex_by_hand, 64, ("phi_male", "phi_female", "rho"), **_SEX),
    "capture_5": _case(
        by_sex_and_time, by_sex_and_time_by_hand, 65, ("phi_beta", "phi_gamma", "rho"), by_time=0.5, **_SEX
    ),
    "capture_masked": _case(masked, masked_by_hand, 61, ("phi", "rho")),
    "capture_unrolled": _case(unrolled, constant_by_hand, 61, ("phi", "rho"), ("z_*",), loops=False),
}
