"""The examples of discrete latents run, and their probabilities agree with recursions and Bayes' rule in NumPy."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from examples import (
    annotators,
    capture_recapture,
    hidden_markov,
    hidden_markov_covariates,
    latent_class,
    switching_regression,
)

COMPARED = 200  # draws of the parameters at which the exact answers are computed


def draws(fit, name: str) -> np.ndarray:
    """Posterior draws of a site with chain and draw as one leading dimension."""
    values = np.asarray(fit.idata["posterior"][name])
    return values.reshape(-1, *values.shape[2:])


def is_plot(path: Path) -> bool:
    """A picture with something in it; empty axes are smaller."""
    found = path.read_bytes()
    return found.startswith(b"\x89PNG\r\n\x1a\n") and len(found) > 20_000


def assert_averages(found, expected, num_draws: int) -> None:
    """Both are means of exact probabilities, over other draws of the parameters. Corrected draws repeat: they count for
    half as many, at least. Of 1,200 numbers one is beyond 6.5 standard errors with a probability of 1e-7. The last
    part is for skew where probabilities are next to 0, and for rounding."""
    error = np.std(expected, axis=0) * (1 / len(expected) + 1 / min(num_draws, 1000)) ** 0.5 * 2**0.5
    assert (np.abs(found - np.mean(expected, axis=0)) < 6.5 * error + 2e-3).all()


def smoothed(log_start, log_moves, log_emission):
    """Probabilities of the states of a chain by the forward and backward recursions, and Viterbi's path, in NumPy; for
    `log_moves[t]` from the state before to that of step t."""
    steps, states = log_emission.shape
    forward, backward = np.zeros((steps, states)), np.zeros((steps, states))
    best, came = np.zeros((steps, states)), np.zeros((steps, states), int)
    forward[0] = best[0] = log_start + log_emission[0]
    for t in range(1, steps):
        forward[t] = np.logaddexp.reduce(forward[t - 1][:, None] + log_moves[t], axis=0) + log_emission[t]
        came[t] = (best[t - 1][:, None] + log_moves[t]).argmax(axis=0)
        best[t] = (best[t - 1][:, None] + log_moves[t]).max(axis=0) + log_emission[t]
    for t in range(steps - 2, -1, -1):
        backward[t] = np.logaddexp.reduce(log_moves[t + 1] + log_emission[t + 1] + backward[t + 1], axis=1)
    log_p = forward + backward
    path = [int(best[-1].argmax())]
    for t in range(steps - 1, 0, -1):
        path.append(int(came[t][path[-1]]))
    return np.exp(log_p - np.logaddexp.reduce(log_p, axis=1)[:, None]), np.array(path[::-1])


@pytest.mark.slow
def test_hidden_markov(tmp_path, capsys):
    fit = hidden_markov.main(tmp_path, progress_bar=False)
    counts, states = hidden_markov.simulate()
    found = fit.marginals()["state"]
    assert (found.argmax(-1) == states).mean() > 0.9
    # Given a draw of the parameters, probabilities and paths are those of the recursions.
    drawn, expected = fit.sample(COMPARED, discrete="map"), []
    for stay, rates, path in zip(drawn["stay"], drawn["rates"], drawn["state"], strict=True):
        log_moves = np.log([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]])
        emission = stats.poisson.logpmf(counts[:, None], rates)
        exact, best = smoothed(log_moves[0], np.broadcast_to(log_moves, (len(counts), 2, 2)), emission)
        expected.append(exact)
        assert (path == best).all() or (path != best).sum() < 3  # a tie, in float32
    assert_averages(found, expected, fit.num_draws)
    low, high = np.quantile(draws(fit, "rates"), [0.001, 0.999], axis=0)
    assert (low < hidden_markov.RATES).all() and (hidden_markov.RATES < high).all()
    assert is_plot(tmp_path / "hidden_markov.png")
    assert "state they came from" in capsys.readouterr().out


@pytest.mark.slow
def test_hidden_markov_covariates(tmp_path, capsys):
    fit = hidden_markov_covariates.main(tmp_path, progress_bar=False)
    data, states = hidden_markov_covariates.simulate()
    found = fit.marginals()["active"][:, 1]
    assert ((found > 0.5) == states).mean() > 0.9
    drawn, expected = fit.sample(COMPARED), []
    for levels, slope, rest, more in zip(*(drawn[n] for n in ("levels", "slope", "rest", "more")), strict=True):
        p = 1 / (1 + np.exp(-(levels + slope * data["warmth"][:, None])))
        log_moves = np.log(np.stack([1 - p, p], axis=-1))
        emission = stats.norm.logpdf(data["walked"][:, None], [rest, rest + more], 1.0)
        expected.append(smoothed(log_moves[0, 0], log_moves, emission)[0][:, 1])
    assert_averages(found, expected, fit.num_draws)
    slope = draws(fit, "slope")
    assert abs(slope.mean() - hidden_markov_covariates.SLOPE) < 4 * slope.std()
    assert is_plot(tmp_path / "hidden_markov_covariates.png")
    warm, cold = (int(n) for n in re.findall(r"to come (\d+)%", capsys.readouterr().out))
    assert warm > cold + 20


@pytest.mark.slow
def test_annotators(tmp_path, capsys):
    fit = annotators.main(tmp_path, progress_bar=False)
    data, truth = annotators.simulate()
    labels, found = data["labels"], fit.marginals()["truth"][:, 0]
    right = (found.argmax(-1) == truth).mean()
    assert right > 0.9 and right > (annotators.by_majority(labels) == truth).mean() + 0.05
    # Given a draw of the parameters the classes of items are independent: Bayes' rule for each.
    drawn, expected = fit.sample(COMPARED), []
    for share, confusion in zip(drawn["share"], drawn["confusion"], strict=True):
        log_p = np.tile(np.log(share), (len(labels), 1))
        for j, said in enumerate(labels.T):
            log_p += np.where(said[:, None] >= 0, np.log(confusion[j].T[said]), 0.0)
        expected.append(np.exp(log_p - np.logaddexp.reduce(log_p, axis=1)[:, None]))
    assert_averages(found, expected, fit.num_draws)
    assert is_plot(tmp_path / "annotators.png")
    assert "by majority" in capsys.readouterr().out


@pytest.mark.slow
def test_capture_recapture(tmp_path, capsys):
    fit = capture_recapture.main(tmp_path, progress_bar=False)
    seen, _ = capture_recapture.simulate()
    for name, exact in zip(("survival", "recapture"), capture_recapture.exact_means(seen), strict=True):
        found = draws(fit, name)
        assert abs(found.mean() - exact) < 0.2 * found.std()
    # Nobody comes back from the dead, and who is seen is alive.
    alive, marked = draws(fit, "alive"), np.cumsum(seen, axis=0)[:-1] > 0
    assert (np.diff(alive, axis=1)[:, marked[1:]] <= 0).all()
    assert (alive[:, seen[1:] == 1] == 1).all()
    assert is_plot(tmp_path / "capture_recapture.png")
    assert "Exact means" in capsys.readouterr().out


@pytest.mark.slow
def test_latent_class(tmp_path, capsys):
    fit = latent_class.main(tmp_path, progress_bar=False)
    data, kinds = latent_class.simulate()
    answers, found = data["answers"], fit.marginals()["kind"][:, 0]
    # Bayes' rule with the true parameters; a third of its errors or fewer may come on top.
    drawn = fit.sample(COMPARED)
    truth = of_classes(answers, latent_class.SHARES, latent_class.YES)
    best = (truth.argmax(-1) == kinds).mean()
    assert (found.argmax(-1) == kinds).mean() > best - (1 - best) / 3
    expected = [of_classes(answers, share, yes) for share, yes in zip(drawn["share"], drawn["yes"], strict=True)]
    assert_averages(found, expected, fit.num_draws)
    yes = draws(fit, "yes")
    assert (np.abs(yes.mean(axis=0) - latent_class.YES) < 5 * yes.std(axis=0)).all()
    assert is_plot(tmp_path / "latent_class.png") and "into their class" in capsys.readouterr().out


def of_classes(answers, share, yes) -> np.ndarray:
    """The probabilities of each person's class, (persons, classes)."""
    given = (answers >= 0)[:, None]
    log_p = np.log(share) + (given * stats.bernoulli.logpmf(np.maximum(answers, 0)[:, None], yes)).sum(axis=-1)
    return np.exp(log_p - np.logaddexp.reduce(log_p, axis=1)[:, None])


@pytest.mark.slow
def test_switching_regression(tmp_path, capsys):
    fit = switching_regression.main(tmp_path, progress_bar=False)
    data, regime, _ = switching_regression.simulate()
    found = fit.marginals()
    assert (found["regime"].argmax(-1) == regime).mean() > 0.95
    drawn, regimes, outliers = fit.sample(COMPARED), [], []
    names = ("intercepts", "slopes", "noise", "stay", "outliers")
    for intercepts, slopes, noise, stay, share in zip(*(drawn[n] for n in names), strict=True):
        residual = data["y"][:, None] - intercepts - slopes * data["x"][:, None]
        usual = np.log(1 - share) + stats.norm.logpdf(residual, scale=noise)
        wide = np.log(share) + stats.norm.logpdf(residual, scale=switching_regression.WIDE)
        log_moves = np.log([[stay, 1 - stay], [1 - stay, stay]])
        steps = np.broadcast_to(log_moves, (len(regime), 2, 2))
        of_regime, _ = smoothed(log_moves[0], steps, np.logaddexp(usual, wide))
        regimes.append(of_regime)
        # Given the regime of its step a point is an outlier or not, whatever the others are.
        outliers.append((of_regime * np.exp(wide - np.logaddexp(usual, wide))).sum(axis=1))
    assert_averages(found["regime"], regimes, fit.num_draws)
    assert_averages(found["outlier"][:, 1], outliers, fit.num_draws)
    assert is_plot(tmp_path / "switching_regression.png") and "99%" in capsys.readouterr().out
