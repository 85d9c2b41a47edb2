"""Programs compiled as users compile theirs: the suite compiles with little optimization what does not ask for more."""

from functools import partial
from typing import Any

import jax

# What XLA does by default.
FULL: dict[str, Any] = {"xla_backend_optimization_level": 3}
if jax.__version_info__ < (0, 11):
    FULL["xla_cpu_use_fusion_emitters"] = True

# `jax.jit` for what a rounding error is measured of. Not for what another transformation is applied to.
jit_as_users = partial(jax.jit, compiler_options=FULL)
