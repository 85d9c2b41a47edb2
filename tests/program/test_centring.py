"""Programs whose sites are in partly non-centred coordinates: q is of nodes, and what is read is of values."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gradient_checks import ONCE
from numpyro import handlers
from scipy import stats

import autovi
from autovi.analysis.structure import analyse_structure
from autovi.initial import initial
from autovi.model.targets import trace_program
from autovi.preparation import Options, prepare
from autovi.program.program import Program
from autovi.program.surrogate import Step
from autovi.result.constants import constant_elements
from autovi.run.drawing import DENSITIES, VALUES, draws
from autovi.run.engine import Engine
from autovi.run.state import State
from autovi.run.stopping import Progress

RUN_ONCE = {"compiler_options": ONCE}
Y = np.array([1.2, -0.3, 0.8, 2.1, 0.4, -1.0, 1.5, 0.1, 0.9, -0.2], np.float32)
NOISE = np.linspace(0.2, 3.0, 10).astype(np.float32)
S = 0.7  # of the groups around their mean
SHARE = (1 / S**2) / (1 / S**2 + 1 / NOISE**2)  # of the prior in the mean of a group given mu


def hierarchy(y, batch=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("groups", 10, subsample_size=batch) as index:
        theta = numpyro.sample("theta", dist.Normal(mu, S))
        numpyro.sample("y", dist.Normal(theta, jnp.asarray(NOISE)[index]), obs=jnp.asarray(y)[index])


def batched(y):
    hierarchy(y, batch=4)


def log_evidence():
    return stats.multivariate_normal(np.zeros(10), 1.0 + np.diag(S**2 + NOISE**2)).logpdf(Y)


def posterior():
    """Mean and covariance of (mu, theta)."""
    prior = np.block([[np.ones((1, 1)), np.ones((1, 10))], [np.ones((10, 1)), 1.0 + S**2 * np.eye(10)]])
    gain = prior[:, 1:] @ np.linalg.inv(prior[1:, 1:] + np.diag(NOISE**2))
    return gain @ Y, prior - gain @ prior[1:]


def in_coordinates(model, data, sites, **options):
    """The engine of a plan, with some of its sites in partly non-centred coordinates."""
    engine, inputs = prepare(model, data, Options(**options))
    lengths = {p.name: p.length for p in engine.program.sites.subsampled.values()}
    traced, _ = trace_program(model, None, inputs, lengths, noncentred=sites)
    program = Program(traced, analyse_structure(traced), engine.program.plan)
    made = Engine(program, model, None, inputs, engine.optimizer, engine.fingerprint, lengths)
    return made, inputs


# The data are normal, so that as pseudo-data they make mu and all nodes independent normals under the posterior.
CONSTANTS = {"precision:theta": (NOISE**-2).astype(np.float32), "datum:theta": Y.astype(np.float32)}


def exact_params(engine):
    mean, covariance = posterior()
    loc = np.concatenate([mean[:1], np.zeros(10)])
    log_scale = np.concatenate([[0.5 * np.log(covariance[0, 0])], np.zeros(10)])
    blocks = {b.name: b for b in engine.program.plan.blocks}
    if "theta" not in blocks:
        return {"joint": {"loc": jnp.asarray(loc, jnp.float32), "log_scale": jnp.asarray(log_scale, jnp.float32)}}
    parts = {"mu": 0, "theta": slice(1, None)}
    shape = engine.initial_params({"y": jnp.asarray(Y)})["guide"]
    of = lambda x, n: jnp.asarray(x[parts[n]], jnp.float32).reshape(shape[n]["loc"].shape)  # noqa: E731
    return {n: {"loc": of(loc, n), "log_scale": of(log_scale, n)} for n in parts}


def test_the_bound_is_exact_where_the_coordinates_make_it_so():
    """Every draw's log weight is the log evidence; in the coordinates of the model no mean field comes near."""
    engine, inputs = in_coordinates(hierarchy, {"y": Y}, ["theta"], guide="mean_field", num_particles=50)
    params = {"guide": exact_params(engine), "param": {}, "constants": CONSTANTS}
    of_step = lambda p: Step(engine.program, p, inputs.traced(), {}, jax.random.key(0), 50).log_weights  # noqa: E731
    weights = jax.jit(of_step, **RUN_ONCE)
    np.testing.assert_allclose(weights(params), log_evidence(), atol=2e-5)
    assert np.std(weights({**params, "constants": {}})) > 1.0


@pytest.mark.parametrize("model", [hierarchy, batched])
def test_draws_are_values_at_full_plates(model):
    engine, inputs = in_coordinates(model, {"y": Y}, ["theta"], guide="mean_field")
    params = {"guide": exact_params(engine), "param": {}, "constants": CONSTANTS}
    drawn = draws(engine, params, inputs.traced(), jax.random.key(1), 20_000, (VALUES, DENSITIES))
    mean, covariance = posterior()
    values = np.column_stack([drawn.values["mu"], drawn.values["theta"]])
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((values.mean(0) - mean) / sd, 0.0, atol=0.04)  # 5.7 standard errors
    np.testing.assert_allclose(np.cov(values.T) / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.06)
    np.testing.assert_allclose(np.asarray(drawn.log_p - drawn.log_q), log_evidence(), atol=3e-5)


def test_steps_of_batches_are_in_the_coordinates_of_their_elements():
    """The bound of one batch: the density of mu, and 10 / 4 of the evidence of its groups given mu."""
    engine, inputs = in_coordinates(batched, {"y": Y}, ["theta"], guide="mean_field", num_particles=1)
    program, arrays = engine.program, inputs.traced()
    state = engine.initial_state(arrays, jax.random.key(0))
    state = state.started_at(program, engine.optimizer, {"guide": exact_params(engine), "param": {}})
    state = jax.tree.map(jnp.copy, state._replace(constants=CONSTANTS))  # no buffer twice, as it is donated
    _, step_key = jax.random.split(state.rng_key)
    _, indices = engine.source.next(arrays, jnp.zeros((), int), step_key)
    seen = program.seen(state.fitted, indices)
    draw_mu = jax.jit(lambda p: Step(program, p, arrays, indices, step_key, 1).nodes["mu"].draw.value, **RUN_ONCE)
    mu, of_mu = float(jnp.squeeze(draw_mu(seen))), np.array([posterior()[0][0], posterior()[1][0, 0] ** 0.5])
    groups = stats.norm(mu, np.sqrt(S**2 + NOISE**2)).logpdf(Y)[np.asarray(indices["groups"])].sum() * 10 / 4
    expected = stats.norm(0, 1).logpdf(mu) - stats.norm(*of_mu).logpdf(mu) + groups
    _, losses = engine.chunk(state, arrays).result()(state, arrays, Progress(2, 2).schedule(0))
    assert losses[0] == pytest.approx(-expected, abs=1e-4)


def test_constants_go_with_a_state_to_the_next_plan():
    engine, inputs = in_coordinates(hierarchy, {"y": Y}, ["theta"], guide="mean_field")
    plain, _ = prepare(hierarchy, {"y": Y}, Options(guide="mean_field"))
    richer, _ = in_coordinates(hierarchy, {"y": Y}, ["theta"], guide="full_rank")
    state: State = engine.initial_state(inputs.traced(), jax.random.key(0))._replace(constants=CONSTANTS)
    move = lambda to, **more: state.moved_to(to, engine.program, engine.optimizer, jax.random.key(0), **more)  # noqa: E731
    assert set(move(richer.program).constants) == set(CONSTANTS)
    with pytest.raises(ValueError, match="site 'theta': it would be in other coordinates"):
        move(plain.program)
    with pytest.raises(ValueError, match="site 'theta': it would be in other coordinates"):
        move(richer.program, constants={"precision:theta": np.zeros(10, np.float32)})
    centred = engine.initial_state(inputs.traced(), jax.random.key(0))
    centred.moved_to(plain.program, engine.program, engine.optimizer, jax.random.key(0))  # both are centred


def test_a_fit_that_is_taken_over_starts_at_its_values():
    """Not at the parameters of its blocks, which are those of other nodes."""
    fit = autovi.fit(hierarchy, {"y": Y}, guide="mean_field", num_steps=200, num_draws=200, progress_bar=False)
    engine, inputs = in_coordinates(hierarchy, {"y": Y}, ["theta"], guide="mean_field")
    found = initial(fit, hierarchy, engine, inputs, inputs.traced(), 0)
    assert not found.blocks
    values = fit.draws.values
    expected = np.concatenate([[values["mu"].mean()], values["theta"].mean(0)])
    np.testing.assert_allclose(found.origin.points[0], expected, atol=1e-5)
    # What a fit in these coordinates gives is read as of any other.
    state = fit.state._replace(params={"guide": exact_params(engine), "param": {}}, constants=CONSTANTS)
    there = replace(fit, engine=engine, state=state._replace(average=state.params))
    assert there.sample(10)["theta"].shape == (10, 10)
    assert constant_elements(there, there.sample(10)) == {}


def scalars(y):
    """Twelve sites of one shape, which stand in a vector one after the other."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    z = [numpyro.sample(f"z{i}", dist.Normal(mu, tau)) for i in range(12)]
    numpyro.sample("y", dist.Normal(jnp.stack(z), 1.0).to_event(1), obs=y)


@pytest.mark.parametrize("some", [range(12), range(0, 12, 3)])
def test_scalar_sites_are_not_taken_for_their_nodes(some):
    """In a block's vector stand nodes; what is computed together is what would be computed apart."""
    sites = [f"z{i}" for i in some]
    engine, inputs = in_coordinates(
        scalars, {"y": np.zeros(12, np.float32)}, sites, guide="mean_field", num_particles=2
    )
    program, arrays = engine.program, inputs.traced()
    precisions = {f"precision:{n}": jnp.asarray(0.1 + 0.05 * i) for i, n in enumerate(sites)}
    data = {f"datum:{n}": jnp.asarray(0.5 - 0.1 * i) for i, n in enumerate(sites)}
    guide = engine.initial_params(arrays)["guide"]
    params = {"guide": guide, "param": {}, "constants": {**precisions, **data}}
    run = jax.jit(program.run, **RUN_ONCE)(params, arrays, jax.random.key(3), {})
    vector = run.nodes["joint"].draw.value
    mu, tau = vector[0], jnp.exp(vector[1])
    for i in range(12):
        node, name = vector[2 + i], f"z{i}"
        expected = node
        if name in sites:
            precision, datum = precisions[f"precision:{name}"], data[f"datum:{name}"]
            share = tau**2 * precision / (1 + tau**2 * precision)
            expected = mu + share * (datum - mu) + tau * (1 - share) ** 0.5 * node
        assert run.values[name] == pytest.approx(float(expected), rel=1e-5)
        assert (program.place_of(f"value:{name}") is None) == (name in sites)
    assert len(sites) < 8 or any(set(sites) == {n[2:] for n in group.names} for group in program.alike)

    def both(params):
        step = Step(program, params, arrays, {}, jax.random.key(3), 2)
        shared = program.shared(params, arrays, {}, program.everything)
        world = program.particle(shared, step.keys[0], jax.tree.map(lambda x: x[0], step.noise))
        apart = world.terms(program.term_names)
        return dict(zip(program.term_names, step.sums[step.places, 0], strict=True)), jax.tree.map(jnp.sum, apart)

    together, apart = jax.jit(both, **RUN_ONCE)(params)
    for name, term in apart.items():
        np.testing.assert_allclose(together[name], term, rtol=2e-5, atol=2e-6, err_msg=name)


def test_masked_elements_that_nothing_feels_are_drawn_from_their_prior():
    on = np.arange(10) < 6

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(4.0, 0.5))
        with numpyro.plate("n", 10), handlers.mask(mask=on):
            theta = numpyro.sample("theta", dist.Normal(mu, S))
            numpyro.sample("y", dist.Normal(theta, jnp.asarray(NOISE)), obs=y)

    engine, inputs = in_coordinates(model, {"y": Y}, ["theta"], guide="mean_field")
    params = {**engine.initial_params(inputs.traced()), "constants": CONSTANTS}
    values = draws(engine, params, inputs.traced(), jax.random.key(0), 4000, (VALUES,)).values
    apart = (values["theta"] - values["mu"][:, None])[:, ~on] / S
    np.testing.assert_allclose(apart.mean(0), 0.0, atol=0.09)  # 5.7 standard errors
    np.testing.assert_allclose(apart.std(0), 1.0, atol=0.07)


def test_a_family_of_the_values_does_not_see_the_coordinates():
    """A gamma is drawn on the site's own scale: its node, and what depends on the node, are not used."""

    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        x = numpyro.sample("x", dist.Gamma(2.0, rate))
        numpyro.sample("y", dist.Poisson(x).expand([10]).to_event(1), obs=y)

    data = {"y": np.arange(10)}
    options = {"families": {"*": "gamma"}, "num_particles": 5}
    weights = []
    for sites in ([], ["x"]):
        engine, inputs = in_coordinates(model, data, sites, **options)
        params = {**engine.initial_params(inputs.traced()), "constants": {"precision:x": 0.0} if sites else {}}
        of_step = lambda p, e=engine, i=inputs: Step(e.program, p, i.traced(), {}, jax.random.key(0), 5).log_weights  # noqa: E731
        weights.append(jax.jit(of_step, **RUN_ONCE)(params))
    np.testing.assert_allclose(*weights, rtol=1e-6)
