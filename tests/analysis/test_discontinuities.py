"""The interface, and which operations are suspected of a jump, known to be continuous, or only cut a support off."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax

from autovi.analysis.bounded_loops import call_bounded
from autovi.analysis.dependence import Dependence, analyse

N, K = 5, 3
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=N), jnp.float32)
Y = jnp.asarray(RNG.normal(size=N), jnp.float32)
Z = jnp.asarray([0, 1, 2, 1, 0])


def report_of(fn: Callable[..., jax.Array], tracked: dict[str, jax.Array]) -> dict[str, Dependence]:
    return analyse(lambda t: {"out": fn(*(t[name] for name in tracked))}, tracked)["out"]


def mixture(mu: jax.Array, x: jax.Array) -> jax.Array:
    weights = dist.Categorical(logits=jnp.zeros(K))
    return dist.MixtureSameFamily(weights, dist.Normal(mu, 1.0)).log_prob(x)


SMOOTH: dict[str, Callable[[jax.Array], jax.Array]] = {
    "logaddexp": lambda x: jnp.logaddexp(x, 0.5),
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "xlogy": lambda x: jax.scipy.special.xlogy(x, jnp.exp(x)),
    "xlog1py": lambda x: jax.scipy.special.xlog1py(2.0, jnp.exp(x)),
    "logsumexp": jax.nn.logsumexp,
    "logsumexp of log densities": lambda x: jax.nn.logsumexp(jax.scipy.special.gammaln(x) + jnp.log(x)),
    "weighted logsumexp": lambda x: jax.nn.logsumexp(x, b=jnp.arange(5.0)),
    "vmapped logsumexp": lambda x: jax.vmap(lambda t: jax.nn.logsumexp(jnp.log(jnp.stack([t, t]))))(x),
    "log_softmax": jax.nn.log_softmax,
    "erfinv": jax.scipy.special.erfinv,
    "logit": jax.scipy.special.logit,
    "expit": jax.scipy.special.expit,
    "log_ndtr": jax.scipy.special.log_ndtr,
    "log1mexp of JAX": jax.nn.log1mexp,
    "log1mexp of NumPyro": numpyro.distributions.util.log1mexp,
    "logaddexp2": lambda x: jnp.logaddexp2(x, jnp.ones((4, 1))),
    "logaddexp with a number": lambda x: jnp.logaddexp(x[0], 0.5),
    "logaddexp in a loop": lambda x: lax.scan(lambda c, t: (jnp.logaddexp(c, t), c), 0.0, x)[1],
    "vmapped log1mexp": lambda x: jax.vmap(numpyro.distributions.util.log1mexp)(x),
    "norm": jnp.linalg.norm,
    "safe norm": lambda x: jnp.where((q := (x**2).sum()) == 0, 0.0, jnp.sqrt(jnp.where(q == 0, 1.0, q))),
    "clip, abs, max": lambda x: jnp.clip(jnp.abs(x), 0, 1) + jnp.maximum(x, 0.3),
    "sort": jnp.sort,
    "sorted pairs, payload": lambda x: lax.sort((Y, x), num_keys=1)[1],
    "top k": lambda x: lax.top_k(x, 2)[0],
    "masked by data": lambda x: jnp.where(Y > 0, x, 0.0),
    "dtype": lambda x: x.astype(jnp.float16),
    "real support": lambda x: dist.Normal(0.0, 1.0).log_prob(x),
    "Normal location": lambda x: dist.Normal(x, 1.0).log_prob(0.3),
    "StudentT": lambda x: dist.StudentT(3.0, x, 1.0).log_prob(0.3),
    "Poisson rate": lambda x: dist.Poisson(jnp.exp(x)).log_prob(3),
    "Gamma shape": lambda x: dist.Gamma(jnp.exp(x), 1.0).log_prob(3.0),
    "Categorical logits": lambda x: dist.Categorical(logits=x).log_prob(1),
    "Bernoulli logits": lambda x: dist.Bernoulli(logits=x).log_prob(1),
    "mixture": lambda x: mixture(x[:K], X),
    "MultivariateNormal": lambda x: dist.MultivariateNormal(x, jnp.eye(N)).log_prob(Y),
    "stick breaking": dist.transforms.StickBreakingTransform(),
    "ordered": dist.transforms.OrderedTransform(),
}
CUT_OFF = {
    "HalfNormal": lambda x: dist.HalfNormal(1.0).log_prob(x),
    "Uniform": lambda x: dist.Uniform(0.0, 1.0).log_prob(x).sum(),
    "factor": lambda x: jnp.where(x.sum() > 0, x, -jnp.inf) * 0.5 + 1,
    "infinity times a comparison": lambda x: jnp.where(jnp.isfinite(x), x, jnp.inf * (x > 0)),
    "NaN": lambda x: jnp.where(x < 0, jnp.nan, x),
}


@jax.custom_vjp
def straight_through(x: jax.Array) -> jax.Array:
    return jnp.round(x)


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))


@jax.custom_jvp
def logaddexp(x: jax.Array) -> jax.Array:
    """A user's function of a name that JAX uses, which it is not."""
    return jnp.floor(x)


logaddexp.defjvp(lambda p, t: (logaddexp(*p), t[0]))


@jax.custom_jvp
def log1mexp(x: jax.Array) -> jax.Array:
    """The same, made of the operations that JAX's own is made of, but its pieces do not meet."""
    return jnp.where(x < jnp.log(2.0), jnp.log(-jnp.expm1(-x)), jnp.log1p(-jnp.exp(-x)) + 1.0)


log1mexp.defjvp(lambda p, t: (log1mexp(*p), t[0]))

JUMPING: dict[str, tuple[Callable[[jax.Array], jax.Array], str]] = {
    "floor": (jnp.floor, "floor"),
    "ceil": (jnp.ceil, "ceil"),
    "round": (jnp.round, "round"),
    "sign": (jnp.sign, "sign"),
    "cast": (lambda x: x.astype(int) * 1.0, "convert_element_type"),
    "cast to bool": (lambda x: Y * x.astype(bool), "convert_element_type"),
    "where": (lambda x: jnp.where(x > 0, 1.0, Y), "gt"),
    "remainder": (lambda x: x % 1.0, "rem"),
    "branch cut": (lambda x: jnp.arctan2(x, Y), "atan2"),
    "argmax": (lambda x: Y[jnp.argmax(x)], "argmax"),
    "argsort": (lambda x: Y[jnp.argsort(x)], "sort"),
    "sorted pairs, keys": (lambda x: lax.sort((x, Y), num_keys=1)[1], "sort"),
    "second key": (lambda x: lax.sort((Y, x), num_keys=2)[1] + lax.sort((x, Y), num_keys=2)[1], "sort"),
    "top k": (lambda x: lax.top_k(x, 2)[1] * 1.0, "top_k"),
    "clipped and compared": (lambda x: jnp.where(jnp.clip(x, 0, 1) == 0, 5.0, x), "eq"),
    "isfinite of a logarithm": (lambda x: jnp.where(jnp.isfinite(jnp.log(x)), jnp.log(x), 3.0), "is_finite"),
    "isnan of a logarithm": (lambda x: jnp.where(jnp.isnan(jnp.log(x)), 0.0, 1.0), "ne"),
    "exp of a cutoff": (lambda x: jnp.exp(jnp.where(x > 0, x, -jnp.inf)), "gt"),
    "logsumexp of cutoffs": (lambda x: jax.nn.logsumexp(jnp.where(x > 0, x, -jnp.inf)), "gt"),
    "large penalty": (lambda x: jnp.where(x > 0, x, -1e10), "gt"),
    "stop_gradient of a floor": (lambda x: lax.stop_gradient(jnp.floor(x)) * x, "floor"),
    "straight through": (straight_through, "round"),
    "a name that JAX uses": (logaddexp, "floor"),
    "a name and an operation that JAX uses": (log1mexp, "lt"),
    "comparison before log1mexp": (lambda x: numpyro.distributions.util.log1mexp(-1.0 * (x > 0)), "gt"),
    "floor before relu": (lambda x: jax.nn.relu(jnp.floor(x)), "floor"),
    "comparison before softplus": (lambda x: jax.nn.softplus(1.0 * (x > 0)), "gt"),
    "nested jit": (jax.jit(lambda x: jax.jit(jnp.floor)(x) + x), "floor"),
    "cond": (lambda x: lax.cond(x.sum() > 0, lambda: 1.0, lambda: 2.0), "gt"),
    "while": (lambda x: lax.while_loop(lambda c: c.sum() < 3, lambda c: c + 1, x), "lt"),
    "scan": (lambda x: lax.scan(lambda c, t: (jnp.round(c + t), c), 0.0, x)[1], "round"),
    "searchsorted": (lambda x: Y[jnp.searchsorted(jnp.arange(3.0), x)], "lt_to le_to call_hi_primitive"),
    "apply": (lambda x: x.at[0].apply(jnp.floor), "scatter"),
    "mutable state": (lambda x: floor_by_reference(x), "ref"),
    "host callback": (
        lambda x: jax.pure_callback(np.floor, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
        "pure_callback",
    ),
}


def floor_by_reference(x: jax.Array) -> jax.Array:
    ref = jax.new_ref(jnp.zeros_like(x))
    ref[...] = jnp.floor(x)
    return ref[...]


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_are_not_suspected(name: str) -> None:
    assert report_of(SMOOTH[name], {"x": X})["x"].jumps == frozenset()


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_switch_to_infinity_is_a_cutoff(name: str) -> None:
    found = report_of(CUT_OFF[name], {"x": X})["x"]
    assert found.jumps == frozenset() and found.cutoffs


@pytest.mark.parametrize("name", JUMPING)
def test_jumps_are_named(name: str) -> None:
    fn, primitive = JUMPING[name]
    assert set(primitive.split()) & report_of(fn, {"x": X})["x"].jumps  # names differ between versions of JAX


def test_an_integer_input_has_no_jumps() -> None:
    found = report_of(lambda z: jnp.floor(z / 2.0), {"z": Z})
    assert found == {"z": Dependence((0,))}


def test_jumps_belong_to_the_input_that_makes_them() -> None:
    found = report_of(lambda x, y: x + jnp.round(y), {"x": X, "y": Y})
    assert found == {"x": Dependence((0,)), "y": Dependence((0,), frozenset({"round"}))}


# --- The interface ----------------------------------------------------------------------------------------


def test_outputs_are_told_apart_and_nothing_is_computed() -> None:
    def fn(tracked: dict[str, jax.Array], data: jax.Array) -> dict[str, jax.Array]:
        return {"w": tracked["b"] * 2, "c": data + 1, "a": tracked["a"].sum() + data, "copy": tracked["a"]}

    shape = jax.ShapeDtypeStruct((10**6, 10**4), jnp.float32)
    found = analyse(
        fn, {"b": shape, "a": jax.ShapeDtypeStruct((3,), jnp.float32)}, jax.ShapeDtypeStruct((7,), jnp.int32)
    )
    assert {k: {n: d.aligned for n, d in v.items()} for k, v in found.items()} == {
        "a": {"a": (None,)},
        "c": {},
        "copy": {"a": (0,)},
        "w": {"b": (0, 1)},
    }


def test_random_draws_depend_on_their_parameters() -> None:
    key = jax.random.key(0)
    found = report_of(lambda x: x + jax.random.normal(key, (N,)), {"x": X})
    assert found == {"x": Dependence((0,))}
    keyed = analyse(lambda t: {"out": jax.random.normal(t["key"], (N,))}, {"key": key})
    assert keyed["out"]["key"].aligned == ()


@pytest.mark.parametrize(
    ("fn", "tracked", "message"),
    [
        (lambda t: {"out": t["x"]}, {"x": (X, Y)}, "tracked: expected one array under 'x', got tuple"),
        (lambda t: {"out": None}, {"x": X}, "the result of fn: expected one array under 'out', got NoneType"),
        (lambda t: t["x"], {"x": X}, "the result of fn: expected a dict of arrays, got ShapeDtypeStruct"),
    ],
)
def test_what_is_no_array_is_refused(fn: Callable, tracked: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        analyse(fn, tracked)


# --- Evaluation of the suspects ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SMOOTH, *CUT_OFF, *JUMPING])
def test_a_program_with_bounded_loops_computes_the_same(name: str) -> None:
    fn = SMOOTH.get(name) or CUT_OFF.get(name) or JUMPING[name][0]
    out, ended = jax.jit(lambda x: call_bounded(fn, 100, x))(X)
    assert ended
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), out, jax.jit(lambda x: fn(x))(X))
