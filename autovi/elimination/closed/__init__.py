"""Closed forms: sites summed out by a formula. `FORMS` is the whole list."""

from autovi.elimination.closed.added_up import AddedUp
from autovi.elimination.closed.base import Closed, Form, Found, Seen, Where
from autovi.elimination.closed.linear_gaussian import LinearGaussian
from autovi.elimination.closed.thinned_poisson import ThinnedPoisson

__all__ = ["FORMS", "Closed", "Form", "Found", "Seen", "Where"]

FORMS: dict[str, type[Form]] = {
    "added_up": AddedUp,
    "thinned_poisson": ThinnedPoisson,
    "linear_gaussian": LinearGaussian,
}
