"""The density that is handed over is the model's, whatever q is made of, and values come back from it."""

import handover.handed_models as m
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import potential_energy

import autovi
from autovi.result.handover.posterior import joint_of, unconstrained_draws


def point(joint, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(joint.shapes))
    return {n: jax.random.normal(k, shape) for k, (n, shape) in zip(keys, joint.shapes.items(), strict=True)}


def numpyros(model, u, data=None):
    return -float(potential_energy(model, (), {"y": m.Y} if data is None else data, u))


@pytest.fixture(scope="module", params=[m.schools, m.constrained, m.walk], ids=lambda model: model.__name__)
def of_continuous(request):
    fit = m.quick(request.param)
    return request.param, fit, joint_of(fit)


def test_it_is_numpyros_potential(of_continuous):
    model, _, joint = of_continuous
    for seed in range(3):
        u = point(joint, seed)
        assert float(joint.log_density(u)) == pytest.approx(numpyros(model, u), rel=1e-5, abs=1e-4)


def test_draws_go_to_it_and_come_back(of_continuous):
    _, fit, joint = of_continuous
    draws = fit.sample(20, resample=False)
    u = unconstrained_draws(fit, joint, draws)
    back = jax.vmap(lambda x: joint.values(x, jax.random.key(0)))(u)
    assert set(back) == set(draws)
    for name in draws:
        np.testing.assert_allclose(back[name], draws[name], rtol=2e-4, atol=2e-5, err_msg=name)


def test_discrete_sites_are_summed_out_and_drawn_from_their_posterior():
    joint = joint_of(m.quick(m.switched))
    assert joint.sites == ("rate",)
    u = {"rate": jnp.asarray(0.3)}
    each = np.array([numpyros(handlers.condition(m.switched, {"on": jnp.asarray(k)}), u) for k in (0, 1)])
    assert float(joint.log_density(u)) == pytest.approx(np.logaddexp(*each), abs=1e-4)
    keys = jax.random.split(jax.random.key(1), 4000)
    drawn = jax.jit(jax.vmap(lambda key: joint.values(u, key)))(keys)
    p = np.exp(each[1] - np.logaddexp(*each))
    assert np.mean(drawn["on"]) == pytest.approx(p, abs=4.5 * (p * (1 - p) / 4000) ** 0.5)
    np.testing.assert_allclose(drawn["level"], drawn["on"] * np.exp(0.3), rtol=1e-5)


def test_the_states_of_a_scan_are_summed_out():
    joint = joint_of(m.quick(m.hidden_markov))
    u = point(joint)
    paths = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T
    at = lambda path: potential_energy(handlers.condition(m.hidden_markov, {"state": path}), (m.Y,), {}, u)  # noqa: E731
    each = -np.asarray(jax.jit(jax.vmap(at))(jnp.asarray(paths)))
    assert float(joint.log_density(u)) == pytest.approx(np.logaddexp.reduce(each), rel=1e-5, abs=1e-4)
    assert joint.values(u, jax.random.key(0))["state"].shape == (4,)


def test_parameters_have_their_fitted_values():
    fit = m.quick(m.with_parameter, num_steps=200)
    joint, u = joint_of(fit), {"x": jnp.asarray(0.4)}
    scale = jnp.asarray(fit.params["scale"])
    assert abs(float(scale) - 1) > 0.02
    fitted = handlers.substitute(m.with_parameter, data={"scale": scale})
    assert float(joint.log_density(u)) == pytest.approx(numpyros(fitted, u), abs=1e-4)


def test_subsampled_plates_are_whole():
    joint = joint_of(m.quick(m.in_batches))
    assert joint.shapes == {"mu": (), "z": (4,)}
    u = point(joint)
    assert float(joint.log_density(u)) == pytest.approx(numpyros(m.in_batches, u, {"y": m.Y, "length": None}), abs=1e-4)


def test_a_guide_function_and_discrete_sites_in_q_do_not_matter():
    from numpyro.infer.autoguide import AutoNormal

    of_guide = joint_of(m.quick(m.schools, guide=AutoNormal(m.schools)))
    u = point(of_guide)
    assert float(of_guide.log_density(u)) == pytest.approx(numpyros(m.schools, u), abs=1e-4)
    in_q = m.quick(m.switched, estimators={"on": "score"})
    u = {"rate": jnp.asarray(0.3)}
    assert float(joint_of(in_q).log_density(u)) == pytest.approx(float(joint_of(m.quick(m.switched)).log_density(u)))


def test_a_log_density_of_ones_own():
    target = autovi.LogDensity(lambda p, y: -0.5 * jnp.sum((y - p["mu"]) ** 2), {"mu": 0.0})
    fit = m.quick(target)
    joint = joint_of(fit)
    assert float(joint.log_density({"mu": jnp.asarray(1.0)})) == pytest.approx(-0.5 * np.sum((m.Y - 1) ** 2), rel=1e-5)
    draws = fit.sample(10)
    np.testing.assert_array_equal(unconstrained_draws(fit, joint, draws)["mu"], draws["mu"])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (m.counts, r"site 'n': NUTS moves continuous sites alone, and this discrete one is not summed out \(estimator"),
        (m.masked, "site 'z': a mask leaves out elements that nothing else feels"),
        (m.discrete_alone, "to_nuts: the model has no continuous site"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_what_is_refused(model, said):
    fit = m.quick(model)
    with pytest.raises(ValueError, match=said):
        fit.to_nuts()


def test_it_is_the_same_in_double_precision():
    with jax.enable_x64(True):
        joint = joint_of(m.quick(m.constrained))
        u = point(joint)
        assert joint.log_density(u).dtype == jnp.float64
        assert float(joint.log_density(u)) == pytest.approx(numpyros(m.constrained, u), rel=1e-12)
        start = m.quick(m.switched).to_nuts(2)
        assert all(x.dtype == jnp.float64 for x in start.init_params.values())
        assert np.isfinite(start.constrain({"rate": jnp.asarray(0.3)})["rate"])
