"""REBAR: the cost at a relaxed draw as a control variate, with the relaxation given the draw in the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autovi.estimators.relaxation import Relaxation


@dataclass(frozen=True)
class Rebar(Relaxation):
    """d/dl E f(w) = E (f(w) - c(z~)) (w - p) + dc(z)/dl - dc(z~)/dl, c(z) = eta f(softmax(z / tau)).

    w is the draw as a one-hot vector and l the logits of p; z = log p + G with w at its argmax, G Gumbels, and z~ a
    draw of the same given where the argmax is. For Bernoulli sites whose cost can be evaluated between 0 and 1, and
    categorical ones of which the model makes what is linear in w; one evaluation at the draw and two, with gradients,
    between. Unbiased for every eta and tau, which are trained on the square of the estimate.
    Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein (2017), "REBAR: Low-variance, unbiased gradient estimates for
    discrete latent variable models".

    Args:
        temperature: tau at the start.
        learning_rate: of Adam, for eta and log tau; 0 leaves them as they are.

    Raises:
        ValueError: a temperature that is not positive.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "rebar"})
    """

    name: ClassVar[str] = "rebar"
