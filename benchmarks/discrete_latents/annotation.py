"""Five models of annotators, of the shapes of NumPyro's `annotation`: who labels an item, and with how many errors.

45 items of four classes, seven labels each, by five annotators of whom the first labels thrice. The examples' priors do
not know one class from another; here annotators are said to be right more often than not, which names the classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

from benchmarks.discrete_latents.base import Case, Data

CLASSES, ITEMS, ANNOTATORS = 4, 45, 5
POSITIONS = np.array([0, 0, 0, 1, 2, 3, 4])
RIGHT = 1.0 + 3.0 * np.eye(CLASSES)  # concentrations of labels by class
LEANING = np.eye(CLASSES)[:, :-1] * 4.0 - np.append(np.zeros(CLASSES - 1), 2.0)[:, None]  # means of logits, last is 0


def _classes(annotations):
    """The plate of items and their classes, with a prior that all items share."""
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(CLASSES)))
    return numpyro.plate("item", len(annotations), dim=-2), lambda: numpyro.sample("c", dist.Categorical(pi))


def _logits(free):
    """Logits of the labels, of which the last is 0."""
    return jnp.concatenate([free, jnp.zeros((*free.shape[:-1], 1))], -1)


def multinomial(annotations):
    """All annotators are alike."""
    with numpyro.plate("class", CLASSES):
        zeta = numpyro.sample("zeta", dist.Dirichlet(jnp.asarray(RIGHT)))
    items, classes = _classes(annotations)
    with items:
        c = classes()
        with numpyro.plate("position", annotations.shape[1]):
            numpyro.sample("y", dist.Categorical(zeta[c]), obs=annotations)


def dawid_skene(positions, annotations):
    """Each annotator has a table of errors."""
    with numpyro.plate("annotator", ANNOTATORS, dim=-2), numpyro.plate("class", CLASSES):
        beta = numpyro.sample("beta", dist.Dirichlet(jnp.asarray(RIGHT)))
    items, classes = _classes(annotations)
    with items:
        c = classes()
        with numpyro.plate("position", len(positions)):
            numpyro.sample("y", dist.Categorical(beta[positions, c]), obs=annotations)


def mace(positions, annotations):
    """An annotator tells the class, or, each time anew, a label of his own taste: two discrete sites in one term.

    A label that is no guess and not the class has probability zero.
    """
    with numpyro.plate("annotator", ANNOTATORS):
        epsilon = numpyro.sample("epsilon", dist.Dirichlet(jnp.full(CLASSES, 10.0)))
        theta = numpyro.sample("theta", dist.Beta(0.5, 0.5))
    with numpyro.plate("item", len(annotations), dim=-2):
        c = numpyro.sample("c", dist.Categorical(logits=jnp.zeros(CLASSES)))
        with numpyro.plate("position", len(positions)):
            s = numpyro.sample("s", dist.Bernoulli(1.0 - theta[positions]))
            told = jax.nn.one_hot(c, CLASSES)
            probs = jnp.where(s[..., None] == 0, told, epsilon[positions])
            numpyro.sample("y", dist.Categorical(probs), obs=annotations)


def hierarchical_dawid_skene(positions, annotations):
    """Tables of errors around one that annotators share."""
    with numpyro.plate("class", CLASSES):
        zeta = numpyro.sample("zeta", dist.Normal(jnp.asarray(LEANING), 1.0).to_event(1))
        omega = numpyro.sample("omega", dist.HalfNormal(1.0).expand([CLASSES - 1]).to_event(1))
    with numpyro.plate("annotator", ANNOTATORS, dim=-2), numpyro.plate("class", CLASSES):
        with reparam(config={"beta": LocScaleReparam(0)}):
            beta = _logits(numpyro.sample("beta", dist.Normal(zeta, omega).to_event(1)))
    items, classes = _classes(annotations)
    with items:
        c = classes()
        with numpyro.plate("position", len(positions)):
            numpyro.sample("y", dist.Categorical(logits=beta[positions, c]), obs=annotations)


def item_difficulty(annotations):
    """Items have logits of their own, spread about those of their class: a continuous site below a discrete one."""
    with numpyro.plate("class", CLASSES):
        eta = numpyro.sample("eta", dist.Normal(jnp.asarray(LEANING), 1.0).to_event(1))
        chi = numpyro.sample("chi", dist.HalfNormal(1.0).expand([CLASSES - 1]).to_event(1))
    items, classes = _classes(annotations)
    with items:
        c = classes()
        with reparam(config={"theta": LocScaleReparam(0)}):
            theta = _logits(numpyro.sample("theta", dist.Normal(eta[c], chi[c]).to_event(1)))
        with numpyro.plate("position", annotations.shape[1]):
            numpyro.sample("y", dist.Categorical(logits=theta), obs=annotations)


def labels(with_positions: bool) -> Data:
    """Labels by annotators who are right with probabilities from .6 to .85, and else say a neighbouring class."""
    rng = np.random.default_rng(50)
    c = rng.choice(CLASSES, ITEMS, p=[0.4, 0.3, 0.2, 0.1])
    right = np.array([0.85, 0.6, 0.7, 0.8, 0.65])[POSITIONS]
    other = (c[:, None] + rng.choice([1, CLASSES - 1, 2], (ITEMS, len(POSITIONS)), p=[0.5, 0.4, 0.1])) % CLASSES
    y = np.where(rng.random(other.shape) < right, c[:, None], other).astype(np.int32)
    return {"annotations": y} | ({"positions": POSITIONS} if with_positions else {})


def _case(model, scored, discrete=("c",), positions=True, **settings):
    return Case(model, lambda: labels(positions), scored, discrete, **settings)


CASES = {
    "annotation_multinomial": _case(multinomial, ("zeta", "pi"), positions=False),
    "annotation_dawid_skene": _case(dawid_skene, ("beta", "pi")),
    "annotation_mace": _case(mace, ("epsilon", "theta"), ("c", "s")),
    "annotation_hierarchical": _case(hierarchical_dawid_skene, ("zeta", "omega", "pi"), target_accept=0.9),
    "annotation_difficulty": _case(item_difficulty, ("eta", "chi", "pi"), positions=False, target_accept=0.9),
}
