"""Cases of docs/errors.md about fits that are handed on, and posteriors beside each other."""

import handover.handed_models as m
import numpy as np

import autovi

X = np.zeros((10, 2))


def beside(other):
    return lambda: autovi.compare({"a": {"x": X}, "b": other})


CASES = {
    "`to_nuts` of a model with a discrete site that is not summed out": [lambda: m.quick(m.counts).to_nuts()],
    "`to_nuts` or `to_numpyro_guide` where a mask leaves out elements of a latent site": [
        lambda: m.quick(m.masked).to_nuts(),
        lambda: m.quick(m.masked).to_numpyro_guide(),
    ],
    "`autovi.compare` of something that holds no draws (`TypeError`)": [beside(3)],
    "`autovi.compare` of posteriors that have no variable in common, or one of another shape": [
        beside({"y": X}),
        beside({"x": X[:, 0]}),
    ],
}
