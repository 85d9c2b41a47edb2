"""Single panels of marginals, as they are read."""

import matplotlib.pyplot as plt
import numpy as np

from autovi.result.plots import marginals
from autovi.result.plots.selection import Element


def test_an_integer_of_one_value_has_whole_ticks():
    figure = plt.figure()
    ax = figure.subplots()
    marginals.draw_one(ax, Element("k", "k", np.full(100, 7)))
    plt.close(figure)
    assert ax.get_xlim() == (5.5, 8.5) and all(float(tick).is_integer() for tick in ax.get_xticks())
