"""The elimination itself against sums over all configurations: evidence, probabilities, best and drawn ones."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import ONCE
from scipy.special import logsumexp

from autovi.elimination import chain
from autovi.elimination.eliminate import Intractable, eliminated
from autovi.elimination.factors import Factor
from autovi.elimination.group import cost_of
from autovi.elimination.network import Network
from autovi.elimination.semirings import Largest, Sampled, Summed
from autovi.model.lags import lagged

NUM_DRAWS = 20_000


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape)


def network_of(sizes, elements, lags=None, time=None):
    """A network; the lagged values of a variable are as many as its own."""
    more = {lagged(v, k): sizes[v] for v, most in (lags or {}).items() for k in range(1, most + 1)}
    return Network({**sizes, **more}, {v: frozenset(e) for v, e in elements.items()}, lags or {}, time or {})


class Case:
    """A network with its tables, and the log weight of every configuration `{(variable, element): value}`."""

    def __init__(self, network, factors):
        self.network, self.factors = network, factors
        self.keys = [
            (v, *at)
            for v in sorted(network.elements)
            for at in product(*(range(network.sizes[a]) for a in sorted(network.elements[v])))
        ]
        sizes = [network.sizes[k[0]] for k in self.keys]
        self.configurations = [dict(zip(self.keys, c, strict=True)) for c in product(*map(range, sizes))]
        self.log = np.array([self._log_weight(c) for c in self.configurations])

    def _log_weight(self, values):
        total = 0.0
        for table, axes in self.factors:
            elements = [a for a in axes if a not in self.network.variables]
            for at in product(*(range(self.network.sizes[a]) for a in elements)):
                place = dict(zip(elements, at, strict=True))
                total += table[tuple(place[a] if a in place else self._value(a, place, values) for a in axes)]
        return total

    def _value(self, name, place, values):
        variable = self.network.variables[name]
        lag = next(k for k in range(5) if lagged(variable, k) == name)
        place = dict(place)
        if lag:
            place[self.network.time[variable]] -= lag
            if place[self.network.time[variable]] < 0:
                return 0  # whatever it is: the first steps have the same at all values
        return values[(variable, *(place[a] for a in sorted(self.network.elements[variable])))]

    def log_sum(self, more, semiring):
        factors = [Factor(jnp.asarray(t), axes) for t, axes in self.factors]
        factors += [Factor(more[v], (v, *sorted(e))) for v, e in self.network.elements.items()]
        return jnp.asarray(sum(jnp.sum(f.table) for f in eliminated(self.network, factors, semiring)))

    def probabilities(self, key):
        """Of each value of a variable's element."""
        p = np.exp(self.log - logsumexp(self.log))
        values = range(self.network.sizes[key[0]])
        return [sum(q for q, c in zip(p, self.configurations, strict=True) if c[key] == k) for k in values]

    def weights(self, semiring):
        """The sum, and its gradient in each variable's log weights."""
        return jax.jit(lambda: self.traced(semiring), compiler_options=ONCE)()

    def traced(self, semiring):
        nothing = {
            v: jnp.zeros([self.network.sizes[a] for a in (v, *sorted(e))]) for v, e in self.network.elements.items()
        }
        return jax.value_and_grad(self.log_sum)(nothing, semiring)


def first_alike(table, lags):
    """The same in the first steps whatever the values before; the axes are the step, the lagged values, the value."""
    table = table.copy()
    for lag in range(1, lags + 1):
        for step in range(lag):
            at = np.take(table[step], [0], axis=lags - lag)
            table[step] = np.broadcast_to(at, table[step].shape)
    return table


def jointly():
    """Two sites in an element of a plate, a parent outside."""
    network = network_of({"a": 2, "b": 3, "c": 2, "n": 2}, {"a": "", "b": "n", "c": "n"})
    tables = [(normal(2), ("a",)), (normal(2, 3, 2), ("n", "b", "a")), (normal(2, 2, 3), ("c", "n", "b"))]
    return Case(network, tables)


def nested():
    """A parent, a site in a plate, and one in a plate inside."""
    network = network_of({"a": 2, "b": 2, "c": 2, "n": 2, "m": 2}, {"a": "", "b": "n", "c": "nm"})
    tables = [(normal(2), ("a",)), (normal(2, 2, 2), ("a", "n", "b")), (normal(2, 2, 2, 2), ("m", "b", "c", "n"))]
    return Case(network, tables)


def loop():
    """A ring of four."""
    sizes = {"a": 3, "b": 2, "c": 2, "d": 2}
    pairs = list(zip("abcd", "bcda", strict=True))
    tables = [(normal(sizes[x], sizes[y], seed=i), (x, y)) for i, (x, y) in enumerate(pairs)]
    return Case(network_of(sizes, dict.fromkeys(sizes, "")), tables)


def hidden_markov(length=5, states=2):
    """A chain and what is seen of it."""
    network = network_of({"x": states, "t": length}, {"x": "t"}, {"x": 1}, {"x": "t"})
    transitions = first_alike(normal(length, states, states), 1)
    return Case(network, [(transitions, ("t", "x@1", "x")), (normal(states, length), ("x", "t"))])


def second_order():
    """A chain that remembers two steps."""
    network = network_of({"x": 2, "t": 5}, {"x": "t"}, {"x": 2}, {"x": "t"})
    return Case(network, [(first_alike(normal(5, 2, 2, 2), 2), ("t", "x@2", "x@1", "x"))])


def factorial():
    """Two chains, a site of its own at each step, and a parent of all."""
    sizes, time = {"w": 2, "x": 2, "z": 2, "g": 2, "t": 3}, {"w": "t", "x": "t"}
    network = network_of(sizes, {"w": "t", "x": "t", "z": "t", "g": ""}, {"w": 1, "x": 1}, time)
    tables = [
        (first_alike(normal(3, 2, 2), 1), ("t", "w@1", "w")),
        (first_alike(normal(3, 2, 2, seed=1), 1), ("t", "x@1", "x")),
        (normal(3, 2, 2, 2), ("t", "w", "x", "z")),
        (normal(2, 3, 2), ("g", "t", "x")),
    ]
    return Case(network, tables)


def sequences():
    """A chain in each element of a plate, with transitions that are the same in all of them."""
    network = network_of({"x": 2, "t": 3, "n": 2}, {"x": "nt"}, {"x": 1}, {"x": "t"})
    table = np.broadcast_to(first_alike(normal(3, 2, 2), 1), (2, 3, 2, 2))
    return Case(network, [(normal(2, 2, 3), ("n", "x", "t")), (table, ("n", "t", "x@1", "x"))])


CASES = {f.__name__: f for f in (jointly, nested, loop, hidden_markov, second_order, factorial, sequences)}


@pytest.fixture(params=CASES)
def case(request):
    with jax.enable_x64(True):
        yield CASES[request.param]()


def test_sum_and_probabilities(case):
    total, weights = case.weights(Summed())
    assert total == pytest.approx(logsumexp(case.log), rel=1e-12)
    for key in case.keys:
        exact = case.probabilities(key)
        np.testing.assert_allclose(weights[key[0]][(slice(None), *key[1:])], exact, atol=1e-12)


def test_the_most_likely_configuration(case):
    total, weights = case.weights(Largest())
    best = case.configurations[int(np.argmax(case.log))]
    assert total == pytest.approx(case.log.max(), rel=1e-12)
    assert {k: np.argmax(weights[k[0]][(slice(None), *k[1:])]) for k in case.keys} == best


def test_draws_are_joint(case):
    """Each configuration's count against its probability, at 6 standard errors (false alarm 2e-9 a configuration, of
    which all cases together have under 2,000)."""
    keys = jax.random.split(jax.random.key(1), NUM_DRAWS)
    draw = jax.vmap(lambda key: case.traced(Sampled(key))[1])
    weights = jax.jit(draw, compiler_options=ONCE)(keys)
    code = np.zeros(NUM_DRAWS, int)
    for key in case.keys:
        entry = np.asarray(weights[key[0]][(slice(None), slice(None), *key[1:])])
        assert np.isin(entry, (0.0, 1.0)).all() and (entry.sum(1) == 1.0).all()
        code = code * case.network.sizes[key[0]] + np.argmax(entry, 1)
    p = np.exp(case.log - logsumexp(case.log))
    found = np.bincount(code, minlength=len(p)) / NUM_DRAWS
    # A count of few is no normal: three more are always allowed.
    assert (np.abs(found - p) < 6 * np.sqrt(p * (1 - p) / NUM_DRAWS) + 3 / NUM_DRAWS).all()


@pytest.mark.parametrize("length", [2, 5, 7])
def test_steps_in_blocks(monkeypatch, length):
    """As on an accelerator."""
    monkeypatch.setattr(chain, "_pays", lambda *args: True)
    with jax.enable_x64(True):
        case = hidden_markov(length)
        total, weights = case.weights(Summed())
        assert total == pytest.approx(logsumexp(case.log), rel=1e-12)
        exact = [case.probabilities(("x", t))[1] for t in range(length)]
        np.testing.assert_allclose(weights["x"][1], exact, atol=1e-12)


def test_impossible_configurations_have_no_gradient_and_no_nan():
    """A pair that cannot be, and one chain that cannot go on from a state."""
    with jax.enable_x64(True):
        case = hidden_markov(4)
        table = case.factors[0][0].copy()
        table[2, 1, :] = -np.inf
        case = Case(case.network, [(table, case.factors[0][1]), case.factors[1]])
        total, weights = case.weights(Summed())
        assert total == pytest.approx(logsumexp(case.log), rel=1e-12)
        assert weights["x"][1, 1] == 0.0 and np.isfinite(weights["x"]).all()
        nothing = Case(case.network, [(np.full_like(table, -np.inf), case.factors[0][1]), case.factors[1]])
        total, weights = nothing.weights(Summed())
        assert total == -np.inf and not np.isnan(weights["x"]).any()


def test_coupled_across_elements_is_said():
    """A site in rows, one in columns, and a table over both: no order of sums takes the elements one by one."""
    network = network_of({"a": 2, "b": 2, "n": 3, "m": 3}, {"a": "n", "b": "m"})
    with pytest.raises(Intractable, match="'a', 'b' are coupled across elements"):
        eliminated(network, [Factor(jnp.zeros((2, 2, 3, 3)), ("a", "b", "n", "m"))], Summed())


def test_the_cost_is_known_before():
    """Of a chain of 100 with 5 states, by hand: the tables of 2,500 and 500 numbers, and a sum of 25 at each step."""
    network = network_of({"x": 5, "t": 100}, {"x": "t"}, {"x": 1}, {"x": "t"})
    cost = cost_of(network, [(("x", "x@1", "t"), "p:x"), (("x", "t"), "p:y")])
    assert cost.largest == 2_500 and dict(cost.axes) == {"x": 5, "x@1": 5, "t": 100}
    assert cost.numbers == 2_500 + 500 + 100 * 25 + 5


def test_curvature_where_one_value_is_certain():
    """The Hessian of a log-sum-exp is diag(p) - p p', 0 where one value alone can be; and where none can."""
    with jax.enable_x64(True):
        hessian = jax.hessian(lambda table: Summed().total(table, (0,)))
        p = np.array([0.2, 0.5, 0.3])
        np.testing.assert_allclose(hessian(jnp.log(p)), np.diag(p) - np.outer(p, p), atol=1e-14)
        for table in ([0.7, -np.inf, -np.inf], [-np.inf] * 3):
            assert np.array_equal(hessian(jnp.array(table)), np.zeros((3, 3)))
