"""The rules of NumPyro's distributions, one row a class; subclasses that draw and weigh alike share their parent's.

Classes without a row are drawn by NumPyro's own explicit samplers.
"""

from __future__ import annotations

import numpyro.distributions as dist

from autovi.implicit.circular.sine_bivariate import draw_sine_bivariate, sine_bivariate_velocity
from autovi.implicit.circular.sine_skewed import draw_sine_skewed, guard_sine_skewed, sine_skewed_velocity
from autovi.implicit.circular.von_mises import draw_von_mises, von_mises_velocity
from autovi.implicit.composite.censored import censored_velocity, draw_censored
from autovi.implicit.composite.copula import copula_velocity, draw_copula, guard_copula
from autovi.implicit.composite.folded import draw_folded, folded_velocity, guard_folded
from autovi.implicit.composite.hurdle import draw_hurdle, guard_hurdle, hurdle_velocity
from autovi.implicit.composite.mixture import draw_mixture, guard_mixture, mixture_velocity
from autovi.implicit.composite.truncated import draw_truncated, truncated_velocity
from autovi.implicit.library import library_draw
from autovi.implicit.multivariate import wishart
from autovi.implicit.multivariate.dirichlet import dirichlet_velocity, draw_dirichlet
from autovi.implicit.multivariate.lkj import draw_lkj_cholesky, lkj_cholesky_velocity
from autovi.implicit.rule import RULES, Rule
from autovi.implicit.univariate import closed_forms as closed
from autovi.implicit.univariate import location_scale as located
from autovi.implicit.univariate import power_law
from autovi.implicit.univariate.beta import beta_velocity, draw_beta
from autovi.implicit.univariate.gamma import draw_gamma, gamma_velocity
from autovi.implicit.univariate.inverse_gamma import draw_inverse_gamma, inverse_gamma_velocity
from autovi.implicit.univariate.student import (
    draw_multivariate_student,
    draw_student,
    multivariate_student_velocity,
    student_velocity,
)

_CENSORED = Rule(censored_velocity, draw_censored)
_HURDLE = Rule(hurdle_velocity, draw_hurdle, guard_hurdle)
_LOCATED = Rule(located.location_scale_velocity, library_draw)
_MIXTURE = Rule(mixture_velocity, draw_mixture, guard_mixture)
_SCALED = Rule(located.scale_velocity, library_draw)
_TRUNCATED = Rule(truncated_velocity, draw_truncated)

RULES.update(
    {
        dist.AsymmetricLaplace: Rule(located.asymmetric_laplace_velocity),
        dist.AsymmetricLaplaceQuantile: Rule(located.asymmetric_laplace_quantile_velocity),
        dist.Beta: Rule(beta_velocity, draw_beta),
        dist.Cauchy: _LOCATED,
        dist.Dagum: Rule(closed.dagum_velocity, closed.draw_dagum),
        dist.Delta: Rule(located.delta_velocity, library_draw),
        dist.Dirichlet: Rule(dirichlet_velocity, draw_dirichlet),
        dist.DoublyTruncatedPowerLaw: Rule(power_law.power_law_velocity, power_law.draw_power_law),
        dist.Exponential: Rule(located.exponential_velocity, library_draw),
        dist.FoldedDistribution: Rule(folded_velocity, draw_folded, guard_folded),
        dist.Gamma: Rule(gamma_velocity, draw_gamma),
        dist.GaussianCopula: Rule(copula_velocity, draw_copula, guard_copula),
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
        dist.InverseGamma: Rule(inverse_gamma_velocity, draw_inverse_gamma),
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
        dist.SineBivariateVonMises: Rule(sine_bivariate_velocity, draw_sine_bivariate),
        dist.SineSkewed: Rule(sine_skewed_velocity, draw_sine_skewed, guard_sine_skewed),
        dist.SoftLaplace: _LOCATED,
        dist.StudentT: Rule(student_velocity, draw_student),
        dist.TwoSidedTruncatedDistribution: _TRUNCATED,
        dist.TwoSidedTruncatedGamma: _TRUNCATED,
        dist.Uniform: Rule(located.uniform_velocity, library_draw),
        dist.VonMises: Rule(von_mises_velocity, draw_von_mises),
        dist.Weibull: Rule(closed.weibull_velocity, closed.draw_weibull),
        dist.WishartCholesky: Rule(wishart.wishart_cholesky_velocity, wishart.draw_wishart_cholesky),
    }
)
