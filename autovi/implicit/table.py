"""The rules of NumPyro's distributions, one row a class; subclasses that draw and weigh alike share their parent's.

Classes without a row are drawn by NumPyro's own explicit samplers.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpyro.distributions as dist

from autovi.implicit.composite import modified
from autovi.implicit.composite.copula import copula_velocity, draw_copula, validate_copula
from autovi.implicit.composite.mixture import draw_mixture, mixture_velocity, validate_mixture
from autovi.implicit.composite.truncated import draw_truncated, truncated_velocity
from autovi.implicit.dispatch import library_draw
from autovi.implicit.multivariate import wishart
from autovi.implicit.multivariate.dirichlet import dirichlet_velocity, draw_dirichlet
from autovi.implicit.multivariate.lkj import draw_lkj_cholesky, lkj_cholesky_velocity
from autovi.implicit.rule import RULES, Rule
from autovi.implicit.univariate import closed_forms as closed
from autovi.implicit.univariate import gamma, power_law
from autovi.implicit.univariate.beta import beta_velocity, draw_beta
from autovi.implicit.univariate.student import (
    draw_multivariate_student,
    draw_student,
    multivariate_student_velocity,
    student_velocity,
)


def _circular(name: str) -> Callable[..., Any]:
    """`module.name` of the folder `circular`, imported when it is first called: few models have angles."""
    module, function = name.split(".")

    def call(*arguments: Any) -> Any:
        return getattr(import_module(f"autovi.implicit.circular.{module}"), function)(*arguments)

    return call


_CENSORED = Rule(modified.censored_velocity, modified.draw_censored)
_HURDLE = Rule(modified.hurdle_velocity, modified.draw_hurdle, modified.validate_hurdle)
_LOCATED = Rule(closed.location_scale_velocity, library_draw)
_MIXTURE = Rule(mixture_velocity, draw_mixture, validate_mixture)
_SCALED = Rule(closed.scale_velocity, library_draw)
_TRUNCATED = Rule(truncated_velocity, draw_truncated)

RULES.update(
    {
        dist.AsymmetricLaplace: Rule(closed.asymmetric_laplace_velocity),
        dist.AsymmetricLaplaceQuantile: Rule(closed.asymmetric_laplace_quantile_velocity),
        dist.Beta: Rule(beta_velocity, draw_beta),
        dist.Cauchy: _LOCATED,
        dist.Dagum: Rule(closed.dagum_velocity, closed.draw_dagum),
        dist.Delta: Rule(closed.delta_velocity, library_draw),
        dist.Dirichlet: Rule(dirichlet_velocity, draw_dirichlet),
        dist.DoublyTruncatedPowerLaw: Rule(power_law.power_law_velocity, power_law.draw_power_law),
        dist.Exponential: Rule(closed.exponential_velocity, library_draw),
        dist.FoldedDistribution: Rule(modified.folded_velocity, modified.draw_folded, modified.validate_folded),
        dist.Gamma: Rule(gamma.gamma_velocity, gamma.draw_gamma),
        dist.GaussianCopula: Rule(copula_velocity, draw_copula, validate_copula),
        dist.Gompertz: Rule(closed.gompertz_velocity, library_draw),
        dist.Gumbel: _LOCATED,
        dist.HalfCauchy: _SCALED,
        dist.HalfNormal: _SCALED,
        dist.HurdleLogits: _HURDLE,
        dist.HurdleProbs: _HURDLE,
        dist.IntervalCensoredDistribution: _CENSORED,
        dist.InverseWishartCholesky: Rule(
            wishart.inverse_wishart_cholesky_velocity, wishart.draw_inverse_wishart_cholesky
        ),
        dist.InverseGamma: Rule(gamma.inverse_gamma_velocity, gamma.draw_inverse_gamma),
        dist.Kumaraswamy: Rule(closed.kumaraswamy_velocity, closed.draw_kumaraswamy),
        dist.LKJCholesky: Rule(lkj_cholesky_velocity, draw_lkj_cholesky),
        dist.Laplace: _LOCATED,
        dist.LeftCensoredDistribution: _CENSORED,
        dist.LeftTruncatedDistribution: _TRUNCATED,
        dist.LeftTruncatedGamma: _TRUNCATED,
        dist.Levy: _LOCATED,
        dist.Logistic: _LOCATED,
        dist.LowerTruncatedPowerLaw: Rule(closed.lower_power_law_velocity, closed.draw_lower_power_law),
        dist.MixtureGeneral: _MIXTURE,
        dist.MixtureSameFamily: _MIXTURE,
        dist.MultivariateStudentT: Rule(multivariate_student_velocity, draw_multivariate_student),
        dist.Normal: _LOCATED,
        dist.Pareto: Rule(closed.pareto_velocity, closed.draw_pareto),
        dist.RightCensoredDistribution: _CENSORED,
        dist.RightTruncatedDistribution: _TRUNCATED,
        dist.RightTruncatedGamma: _TRUNCATED,
        dist.SineBivariateVonMises: Rule(
            _circular("sine_bivariate.sine_bivariate_velocity"), _circular("sine_bivariate.draw_sine_bivariate")
        ),
        dist.SineSkewed: Rule(
            _circular("sine_skewed.sine_skewed_velocity"),
            _circular("sine_skewed.draw_sine_skewed"),
            _circular("sine_skewed.validate_sine_skewed"),
        ),
        dist.SoftLaplace: _LOCATED,
        dist.StudentT: Rule(student_velocity, draw_student),
        dist.TwoSidedTruncatedDistribution: _TRUNCATED,
        dist.TwoSidedTruncatedGamma: _TRUNCATED,
        dist.Uniform: Rule(closed.uniform_velocity, library_draw),
        dist.VonMises: Rule(_circular("von_mises.von_mises_velocity"), _circular("von_mises.draw_von_mises")),
        dist.Weibull: Rule(closed.weibull_velocity, closed.draw_weibull),
        dist.WishartCholesky: Rule(wishart.wishart_cholesky_velocity, wishart.draw_wishart_cholesky),
    }
)
