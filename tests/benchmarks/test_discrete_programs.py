"""The benchmarks with discrete sites: what they score with, and a short run."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks import assignments, discrete_vae


def test_the_mixtures_elbo_is_the_log_joint_less_log_q():
    points, narrow = assignments.simulate(), -9.0
    params = {
        "loc": jnp.asarray(assignments.CENTRES, jnp.float32),
        "log_scale": jnp.full((3, 2), narrow),
        "log_weights": jnp.full(3, 12.0),  # all but exactly a third each
    }
    parts = stats.norm.logpdf(points[:, None], assignments.CENTRES).sum(-1) - np.log(3)
    log_joint = np.logaddexp.reduce(parts, 1).sum() + stats.norm.logpdf(assignments.CENTRES, 0, 5).sum() + np.log(2)
    entropy = 6 * (narrow + 0.5 * (1 + np.log(2 * np.pi))) + stats.dirichlet.entropy(np.full(3, np.exp(12.0)))
    assert assignments.elbo(params, points, 400) == pytest.approx(log_joint + entropy, abs=0.5)


@pytest.mark.slow
def test_a_short_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(discrete_vae, "CONTENDERS", {"disarm, 2": discrete_vae.CONTENDERS["disarm, 2"]})
    arguments = ["--kinds", "linear", "--parts", "variance", "--steps", "100", "--output", str(tmp_path)]
    discrete_vae.main(arguments)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| disarm")]
    # NumPyro's has no baseline: far from the optimum, too, that is worth a factor of many.
    assert float(rows[0][2]) > 5.0 and (tmp_path / "discrete_vae.json").exists()
