"""The example of NUTS from a fit."""

import numpy as np
import pytest

from examples import stack_loss

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_data_are_brownlees():
    """Least squares on them, as printed since: -39.92, 0.716, 1.295, -0.152 (Draper and Smith, 1966)."""
    design = np.column_stack([np.ones(21), stack_loss.DATA["x"]])
    found = np.linalg.lstsq(design, stack_loss.LOSS)[0]
    np.testing.assert_allclose(found, [-39.92, 0.716, 1.295, -0.152], atol=5e-3)


@pytest.mark.slow
def test_stack_loss(tmp_path, capsys):
    found = stack_loss.main(tmp_path, num_samples=150, own_warmup=150, progress_bar=False)
    assert list(found) == ["the fit", "from the fit", "own warm-up"]
    assert found["from the fit"] < 0.2 * found["own warm-up"]
    for name in ("stack_loss.png", "stack_loss_pairs.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG) and (tmp_path / name).stat().st_size > 20_000
    printed = capsys.readouterr().out
    assert "NutsStart: 4 chains in 5 dimensions" in printed and "'from the fit' agrees with 'own warm-up'" in printed
