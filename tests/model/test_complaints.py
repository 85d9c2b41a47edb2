"""What is said of exceptions in a model: with its source and without, of None, of arrays that are changed in place."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import autovi

Y = np.array([0.5, -0.2, 1.0, 0.3])


def said(model, data):
    with pytest.raises(ValueError) as caught:
        autovi.plan(model, data)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return str(caught.value)


def test_a_model_without_source():
    names = {"np": np, "numpyro": numpyro, "dist": dist}
    exec("def model(y):\n    mu = numpyro.sample('mu', dist.Normal())\n    np.exp(mu)", names)
    message = said(names["model"], {"y": Y})
    assert message.startswith("model: a number was asked for that only the run will give; write jax.numpy for numpy")
    assert message.endswith('File "<string>", line 3, in model')


def halved(values):
    return values / 2


@pytest.mark.parametrize(
    ("use", "expression"),
    [
        (lambda y: y / 2, "y / 2"),
        (lambda y: len(y), "len(y)"),
        (lambda y: y.shape[0], "y.shape"),
        (lambda y: y[0], "y[0]"),
        (lambda y: jnp.log(y), "jnp.log(y)"),
        (lambda y: np.sqrt(y), "np.sqrt(y)"),
        (lambda y: halved(y), "halved(y)"),
        (lambda y: dist.Normal(0.0, y), "dist.Normal(0.0, y)"),
    ],
)
def test_none_where_a_value_is_needed(use, expression):
    def model(x, y=None):
        numpyro.sample("mu", dist.Normal())
        use(y)

    message = said(model, {"x": Y})
    assert message.startswith("y: the argument 'y' of the model is None, and the model needs a value of it in `")
    assert f"`{expression}`" in message and "plate" not in message


def test_none_that_is_no_argument():
    def model(y):
        numpyro.sample("mu", dist.Normal())
        offset = None
        return y + offset

    assert "model: `offset` is None, where `y + offset` needs a value" in said(model, {"y": Y})


def test_one_of_several_arguments_that_are_none():
    def model(x=None, y=None, z=None):
        numpyro.sample("mu", dist.Normal())
        return y * 2

    assert said(model, {}).startswith("y: the argument 'y' of the model is None")


def test_data_are_not_changed_in_place():
    def whole(y):
        int(y.max())  # needs the values of the data, which become constants
        numpyro.sample("mu", dist.Normal())
        y += 1

    def element(y):
        int(y.max())
        y[0] = 1.0

    given = Y.copy()
    assert "`y += 1` changes an array in place" in said(whole, {"y": given})
    assert "write `y = y + 1`" in said(whole, {"y": given})
    assert "write `y = jnp.asarray(y).at[0].set(1.0)`" in said(element, {"y": given})
    np.testing.assert_array_equal(given, Y)


def test_the_lines_that_lead_to_a_fault():
    def inner(mu):
        return np.exp(mu)

    def model(y):
        inner(numpyro.sample("mu", dist.Normal()))

    lines = said(model, {"y": Y}).splitlines()
    assert [line.strip() for line in lines[2::2]] == ['inner(numpyro.sample("mu", dist.Normal()))', "return np.exp(mu)"]


@pytest.mark.parametrize("error", [KeyError("boom"), RuntimeError("boom"), AttributeError("boom")])
def test_an_exception_of_the_model_s_own_keeps_its_kind_and_is_told_where(error):
    def model(y):
        numpyro.sample("mu", dist.Normal())
        raise error

    with pytest.raises(type(error), match="boom") as caught:
        autovi.plan(model, {"y": Y})
    note = caught.value.__notes__[-1]
    assert note.startswith("raised by the model; the last site reached was 'mu'") and note.endswith("raise error")


def test_a_guide_s_fault_is_the_guide_s():
    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal()), 1.0).expand([4]).to_event(1), obs=y)

    def guide(y):
        loc = numpyro.param("loc", 0.0)
        numpyro.sample("mu", dist.Normal(loc if loc > 0 else 0.0, 1.0))

    with pytest.raises(ValueError, match=r"^guide: .*write `jnp.where\(loc > 0, loc, 0.0\)`"):
        autovi.plan(model, {"y": Y}, guide=guide)


def test_vectors_of_parameters():
    def model(y):
        p = numpyro.sample("p", dist.Beta(2.0, 2.0))
        numpyro.sample("k", dist.Categorical(np.array([0.5, 0.9])), obs=0)
        numpyro.sample("y", dist.Bernoulli(p), obs=1)

    assert "site 'k': the probs of its CategoricalProbs is [0.5 0.9]; expected simplex" in said(model, {"y": 1.0})


def test_parameters_with_bounds():
    def model(y):
        numpyro.sample("p", dist.Beta(2.0, 2.0))
        numpyro.sample("y", dist.Bernoulli(np.array([0.5, 1.5])), obs=1)

    message = said(model, {"y": 1.0})
    assert "site 'y': the probs of its BernoulliProbs is 1.5 at (1,); expected unit interval" in message
