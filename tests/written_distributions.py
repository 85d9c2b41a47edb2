"""Distributions as users write them, right and wrong ones, for the routes by a `cdf` or a `log_prob`."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints


class Written(dist.Distribution):
    """What the distributions of this file have in common: one batch shape for all parameters."""

    support = constraints.positive

    def __init__(self, *values, validate_args=None):
        values = [jnp.asarray(value, float) for value in values]
        for name, value in zip(self.arg_constraints, values, strict=True):
            setattr(self, name, value)
        super().__init__(jnp.broadcast_shapes(*map(jnp.shape, values)), (), validate_args=validate_args)

    def noise(self, key, sample_shape):
        return jax.random.exponential(key, sample_shape + self.batch_shape)


class LogRayleigh(Written):
    """Only a log density; dz = z / scale dscale."""

    arg_constraints = {"scale": constraints.positive}

    def __init__(self, scale, validate_args=None):
        super().__init__(scale, validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        return self.scale * jnp.sqrt(2 * self.noise(key, sample_shape))

    def log_prob(self, value):
        return jnp.log(value) - 2 * jnp.log(self.scale) - 0.5 * (value / self.scale) ** 2


class Rayleigh(LogRayleigh):
    def cdf(self, value):
        return -jnp.expm1(-0.5 * (value / self.scale) ** 2)

    log_prob = LogRayleigh.__dict__["log_prob"]


class StoppedRayleigh(LogRayleigh):
    def cdf(self, value):
        return -jnp.expm1(-0.5 * (value / jax.lax.stop_gradient(self.scale)) ** 2)


class WrongRayleigh(LogRayleigh):
    def cdf(self, value):
        return -jnp.expm1(-0.6 * (value / self.scale) ** 2)


class WideRayleigh(LogRayleigh):
    def sample(self, key, sample_shape=()):
        return 1.2 * super().sample(key, sample_shape)


class UnnormalizedRayleigh(LogRayleigh):
    def log_prob(self, value):
        return super().log_prob(value) + 3 * jnp.log(self.scale) - 1.5


class HalfRayleigh(Rayleigh):
    """Its own density and sampler with its parent's cdf, which is another distribution's."""

    def sample(self, key, sample_shape=()):
        return super().sample(key, sample_shape) / 2

    def log_prob(self, value):
        return super().log_prob(2 * value) + jnp.log(2.0)


class InverseGaussian(Written):
    """Only a log density and a sampler by rejection of a root (Michael, Schucany and Haas, 1976)."""

    arg_constraints = {"mean_value": constraints.positive, "shape": constraints.positive}

    def __init__(self, mean_value, shape, validate_args=None):
        super().__init__(mean_value, shape, validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        normal_key, uniform_key = jax.random.split(key)
        shape, m = sample_shape + self.batch_shape, self.mean_value
        y = m * jax.random.normal(normal_key, shape) ** 2 / self.shape
        root = m * (1 + y / 2 - jnp.sqrt(y + y * y / 4))
        return jnp.where(jax.random.uniform(uniform_key, shape) <= m / (m + root), root, m * m / root)

    def log_prob(self, value):
        spread = self.shape * (value - self.mean_value) ** 2 / (2 * self.mean_value**2 * value)
        return 0.5 * jnp.log(self.shape / (2 * jnp.pi)) - 1.5 * jnp.log(value) - spread


class ShiftedExponential(Written):
    """The support moves: z = low + e / rate."""

    arg_constraints = {"low": constraints.real, "rate": constraints.positive}

    def __init__(self, low, rate, validate_args=None):
        super().__init__(low, rate, validate_args=validate_args)

    @property
    def support(self):
        return constraints.greater_than(self.low)

    def sample(self, key, sample_shape=()):
        return self.low + self.noise(key, sample_shape) / self.rate

    def log_prob(self, value):
        return jnp.log(self.rate) - self.rate * (value - self.low)


class Flat(Written):
    """Both ends of the support move: z = low + u (high - low). No constraint says that low is less than high."""

    arg_constraints = {"low": constraints.dependent, "high": constraints.dependent}

    def __init__(self, low, high, validate_args=None):
        super().__init__(low, high, validate_args=validate_args)

    @property
    def support(self):
        return constraints.interval(self.low, self.high)

    def sample(self, key, sample_shape=()):
        shape = sample_shape + self.batch_shape
        return self.low + jax.random.uniform(key, shape, minval=1e-6) * (self.high - self.low)

    def log_prob(self, value):
        return -jnp.log(self.high - self.low) + jnp.zeros_like(value)


class TwoPeaks(Written):
    """Two narrow modes far apart, which no quadrature that knows only the density can find."""

    support = constraints.real
    arg_constraints = {"gap": constraints.positive, "logit": constraints.real}

    def __init__(self, gap, logit, validate_args=None):
        super().__init__(gap, logit, validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        first, second = jax.random.split(key)
        shape = sample_shape + self.batch_shape
        right = jax.random.bernoulli(first, jax.nn.sigmoid(self.logit), shape)
        return jax.random.normal(second, shape) + jnp.where(right, self.gap, 0.0)

    def log_prob(self, value):
        normal = lambda x: -0.5 * x * x - 0.5 * jnp.log(2 * jnp.pi)  # noqa: E731
        right = normal(value - self.gap) + jax.nn.log_sigmoid(self.logit)
        return jnp.logaddexp(normal(value) + jax.nn.log_sigmoid(-self.logit), right)


class Spike(TwoPeaks):
    """A narrow mode, whose width is `gap`, in the middle of a wide one."""

    def sample(self, key, sample_shape=()):
        first, second = jax.random.split(key)
        shape = sample_shape + self.batch_shape
        narrow = jax.random.bernoulli(first, jax.nn.sigmoid(self.logit), shape)
        return jax.random.normal(second, shape) * jnp.where(narrow, self.gap, 1.0)

    def log_prob(self, value):
        normal = lambda x: -0.5 * x * x - 0.5 * jnp.log(2 * jnp.pi)  # noqa: E731
        narrow = normal(value / self.gap) - jnp.log(self.gap) + jax.nn.log_sigmoid(self.logit)
        return jnp.logaddexp(normal(value) + jax.nn.log_sigmoid(-self.logit), narrow)


class Gap(Written):
    """Uniform on [0, 1] with probability `left`, else on [2, 3]: its cdf is right, and differentiable."""

    support = constraints.interval(0.0, 3.0)
    arg_constraints = {"left": constraints.unit_interval}

    def sample(self, key, sample_shape=()):
        first, second = jax.random.split(key)
        shape = sample_shape + self.batch_shape
        right = jax.random.uniform(first, shape) > self.left
        return jax.random.uniform(second, shape) + jnp.where(right, 2.0, 0.0)

    def log_prob(self, value):
        inside = jnp.where(value > 2, jnp.log1p(-self.left), jnp.log(self.left))
        return jnp.where((value > 1) & (value < 2), -jnp.inf, inside)

    def cdf(self, value):
        return self.left * jnp.clip(value, 0.0, 1.0) + (1 - self.left) * jnp.clip(value - 2, 0.0, 1.0)


class UndefinedGap(Gap):
    """Its density is not a number where it should be 0."""

    def log_prob(self, value):
        return jnp.log(jnp.exp(super().log_prob(value)) - jnp.where((value > 1) & (value < 2), 1.0, 0.0))
