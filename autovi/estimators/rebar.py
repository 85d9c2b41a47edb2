"""REBAR: the cost at a relaxed draw as a control variate, with the relaxation given the draw in the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autovi.estimators.relaxation import Relaxation


@dataclass(frozen=True)
class Rebar(Relaxation):
    """d/dl E f(b) = E (f(b) - c(z~)) (b - p) + dc(z)/dl - dc(z~)/dl, c(z) = eta f(sigmoid(z / tau)),

    z = l + logit(u) with b = 1[z > 0], z~ = l + logit(v), v uniform on the part of (0, 1) that gives b. For Bernoulli
    sites whose cost can be evaluated between 0 and 1; one evaluation at the draw and two, with gradients, between.
    Unbiased for every eta and tau, which are trained on the square of the estimate.
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
