"""The route of a univariate distribution without a rule of its own: by its `cdf`, or by its `log_prob` alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution

from autovi.distributions import registry
from autovi.implicit.generic.by_log_prob import log_prob_velocity
from autovi.implicit.generic.checking import CheckReport, examine
from autovi.implicit.generic.examples import examples
from autovi.implicit.rule import Rule, require_distribution
from autovi.keys import as_key


def cdf_velocity(fn: Any, value: Array, moving: Any) -> Array:
    """`dz = -dF(z; theta) / p(z; theta)`, from the `cdf` and the `log_prob` of `fn`.

    Figurnov, Mohamed and Mnih (2018), equation 6. Where the density underflows, so does the derivative of F, and the
    result is 0: no draw falls there.
    """
    leaves, treedef = jax.tree.flatten(fn)
    tangents = jax.tree.leaves(moving)
    _, along = jax.jvp(lambda leaves: jax.tree.unflatten(treedef, leaves).cdf(value), (leaves,), (tangents,))
    density = jnp.exp(fn.log_prob(value))
    seen = density > jnp.finfo(density.dtype).tiny
    return jnp.where(seen, -along, 0.0) / jnp.where(seen, density, 1.0)


_ROUTES = {"cdf": Rule(cdf_velocity), "log_prob": Rule(log_prob_velocity)}
_passed: dict[Any, CheckReport] = {}  # by class, structure and shapes


def generic_rule(fn: Distribution) -> Rule:
    """The rule of a univariate continuous distribution that is not in the table, after a check if it is not NumPyro's.

    The check runs once for a class and its shapes, on the parameters' values, or on feasible ones if they are traced.

    Raises:
        TypeError: multivariate, discrete, or something is missing; says what, and what to do.
        ValueError: a check failed.
    """
    _require(fn)
    if registry.is_listed(fn):
        return listed_rule(fn)
    key = _key(fn)
    if key not in _passed:
        copies = examples(fn)
        with jax.ensure_compile_time_eval():
            reports = [_examine(copy, 0) for copy in copies]
        _passed[key] = next((report for report in reports if report.route == "log_prob"), reports[0])
    return _ROUTES[_passed[key].route]


def listed_rule(fn: Distribution) -> Rule:
    """The rule of one of NumPyro's own univariate distributions: a `cdf` of theirs that has derivatives is right."""
    value = jax.ShapeDtypeStruct(fn.batch_shape, jnp.result_type(*jax.tree.leaves(fn), float))
    try:
        jax.eval_shape(jax.grad(lambda fn, value: jnp.sum(fn.cdf(value)), allow_int=True), fn, value)
    except (NotImplementedError, TypeError, ValueError):  # no `cdf`, or one that JAX cannot differentiate
        return _ROUTES["log_prob"]
    return _ROUTES["cdf"]


def check(distribution: Distribution, rng_key: Array | int = 0) -> CheckReport:
    """Checks that a distribution that you wrote can be differentiated through its draws, and says how it is.

    Its draws must follow its `log_prob`, which must integrate to 1 over its `support` and vanish nowhere between them.
    The derivative of a draw is then `-dF/p` from its `cdf`, if that agrees in value and in its derivatives with a fine
    quadrature of the log density, otherwise from a coarser quadrature, which must agree with it too. `sample` and
    `reparameterize` check each class by themselves; calling this outside of `jit` serves parameters about which
    `arg_constraints` says nothing, and tests.

    Args:
        distribution: univariate, with concrete parameters, best those of a hard case.
        rng_key: of the draws that are looked at; a JAX key, or an integer.

    Returns:
        What was measured, and the route that follows from it.

    Raises:
        TypeError: not a distribution, multivariate, discrete, with traced parameters, or something is missing; says
            what, and what to do.
        ValueError: a check failed; says which, what was expected and what came out. Or `rng_key` is no key.

    Example:
        >>> autovi.implicit.check(Rayleigh(2.0)).route
        'log_prob'
    """
    _require(distribution)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(distribution)):
        raise TypeError(f"{type(distribution).__name__}: check needs numbers; call it outside of jit, vmap and grad")
    report = _examine(distribution, rng_key)
    _passed[_key(distribution)] = report
    return report


def _examine(fn: Distribution, rng_key: Array | int) -> CheckReport:
    name = type(fn).__name__
    quiet = jax.tree.unflatten(*reversed(jax.tree.flatten(fn)))
    quiet._validate_args = False  # the line is looked at where the support ends
    try:
        return examine(quiet, as_key(rng_key))
    except (NotImplementedError, AttributeError) as error:
        raise TypeError(
            f"{name}: a pathwise gradient needs its sample, log_prob and support, and parameters listed in "
            f"arg_constraints or pytree_data_fields: {error!r}; {_advice(name)}"
        ) from error


def _require(fn: Distribution) -> None:
    require_distribution(fn)
    name = type(fn).__name__
    if fn.event_shape and registry.is_listed(fn):
        raise TypeError(f"{name}: its draws move with their noise, which values from elsewhere do not tell; use sample")
    if fn.event_shape:
        raise TypeError(
            f"{name}: multivariate, and autovi does not know its class; attach the gradient to its draws with "
            f"autovi.implicit.factorized or autovi.implicit.sequential, or {_advice(name)}"
        )
    if fn.support is None:
        raise TypeError(f"{name}: has no support, so nothing is known of where its draws lie; {_advice(name)}")
    if registry.is_discrete(fn):
        raise TypeError(f"{name}: its values are discrete, so a draw has no derivative; use 'enumerate' or the score")


def _advice(name: str) -> str:
    return f"register a rule: autovi.implicit.register({name}, velocity=..., draw=...)"


def _key(fn: Distribution) -> Any:
    leaves, treedef = jax.tree.flatten(fn)
    # As text, since something that is no parameter may not be hashable.
    return type(fn), str(treedef), tuple((jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves)
