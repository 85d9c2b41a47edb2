"""REBAR: the cost at a relaxed draw as a control variate, with the relaxation given the draw in the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from autovi.estimators.base import Cost
from autovi.estimators.relaxation import Part, Relaxation


@dataclass(frozen=True)
class Rebar(Relaxation):
    """d/dl E f(w) = E (f(w) - c(z~)) (w - p) + dc(z)/dl - dc(z~)/dl, c(z) = eta f(softmax(z / tau)).

    w is the draw as a one-hot vector and l the logits of p; z = log p + G with w at its argmax, G Gumbels, and z~ a
    draw of the same given where the argmax is. For Bernoulli sites whose cost can be evaluated between 0 and 1, and
    categorical ones of which the model makes what is linear in w; one evaluation at the draw and two, with gradients,
    between. Unbiased for every eta and tau: eta, 1 at first, is the regression coefficient of least variance by past
    steps, tau is trained on the square of the estimate.
    Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein (2017), "REBAR: Low-variance, unbiased gradient estimates for
    discrete latent variable models".

    Args:
        temperature: tau at the start.
        learning_rate: of Adam, for log tau; 0 leaves it as it is.
        rate: at which the moments behind eta forget past steps; 0 leaves eta at 1.

    Raises:
        ValueError: a temperature that is not positive.

    Example:
        >>> autovi.fit(model, data, estimators={"z": "rebar"})
    """

    name: ClassVar[str] = "rebar"

    @property
    def start(self) -> tuple[float, ...]:
        return (1.0,)

    def parts(self, cost: Cost, params: Any) -> list[Part]:
        return [self.of_model(cost, params)]
