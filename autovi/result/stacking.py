"""Stacking: several posteriors of one model weighed by how well they predict each observation from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autovi.run.weights import weights_of

if TYPE_CHECKING:
    from autovi.result.posterior import Posterior

GAP = 1e-3  # nats of the summed log score that the weights may be short of the best ones
MOST_ROUNDS = 10_000


def loo_scores(fit: Posterior) -> np.ndarray:
    r"""Leave-one-out log scores :math:`\log p(y_i | y_{-i})` of a fit, `(num_observations,)` in nats.

    From the fit's draws by Pareto smoothed importance sampling. A draw of q has weight
    :math:`p(x, z) / q(z) / p(y_i | z)`, one that is corrected already the last factor. Observed sites one after the
    other, their elements in C order; elements that are masked score 0.

    Vehtari, Gelman and Gabry (2017), "Practical Bayesian model evaluation using leave-one-out cross-validation and
    WAIC"; with draws of an approximation, Magnusson et al. (2019), "Bayesian leave-one-out cross-validation for large
    data".

    Raises:
        ValueError: the model has no observations; or a log weight is NaN or infinite.
    """
    likelihoods = [np.asarray(x, np.float64).reshape(len(x), -1) for x in fit.log_likelihoods.values()]
    if not likelihoods or not sum(x.shape[1] for x in likelihoods):
        raise ValueError("weights: the model has no observations to be predicted; 'evidence' needs none")
    each = np.concatenate(likelihoods, axis=1)
    draws = fit.densities
    log_p, log_q = np.asarray(draws.log_p, np.float64), np.asarray(draws.log_q, np.float64)
    own = np.zeros(len(each)) if fit.resampled else log_p - log_q
    return np.array([_score(own - column, column) for column in each.T])


def _score(log_weights: np.ndarray, log_likelihood: np.ndarray) -> float:
    weights = weights_of(log_weights)
    if not weights.log.size:
        raise ValueError(f"weights: an observation cannot be left out: {weights.why}")
    return float(np.logaddexp.reduce(weights.log + log_likelihood))


def stacked(scores: np.ndarray) -> np.ndarray:
    r"""The weights on the simplex that predict best, :math:`\arg\max_w \sum_i \log \sum_k w_k \exp(s_{ki})`.

    The objective is concave. The steps are those of EM for the weights of a mixture with known components, each of
    which raises it, until it is within 0.001 nats of the maximum: with :math:`g_k` the mean over i of
    :math:`\exp(s_{ki}) / \sum_j w_j \exp(s_{ji})` it is at most :math:`n \log \max_k g_k` short of it.

    Yao, Vehtari, Simpson and Gelman (2018), "Using stacking to average Bayesian predictive distributions".

    Args:
        scores: log scores `(num_posteriors, num_observations)` in nats.

    Returns:
        Weights `(num_posteriors,)`, which sum to one.

    Example:
        >>> stacked(np.log([[0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.1, 0.9]])).round(3).tolist()
        [0.812, 0.188]
    """
    scores = np.asarray(scores, np.float64)
    heights = np.exp(scores - scores.max(axis=0))
    number = scores.shape[1]
    weights = np.full(len(scores), 1 / len(scores))
    for _ in range(MOST_ROUNDS):
        gain = (heights / (weights @ heights)).mean(axis=1)
        if number * np.log(gain.max()) <= GAP:
            break
        weights = weights * gain
    return weights / weights.sum()
