"""The example of a calibration runs, and finds what is known: exact posteriors pass, uncorrelated normals do not."""

import numpy as np

from examples import calibration


def test_calibration(tmp_path, capsys):
    found = calibration.main(tmp_path, num_simulations=40, progress_bar=False)
    assert found["chosen"].verdict.word == "calibrated"
    assert {row.words for row in found["mean_field"].rows if row.quantity != "log_likelihood"} == {("too_narrow",)}
    # Of normals without a correlation the sds are those given the other site.
    precision = np.diag([0.25, 1.0]) + np.array(
        [[4.0, calibration.X.sum()], [calibration.X.sum(), (calibration.X**2).sum()]]
    )
    for i, name in enumerate(("level", "slope")):
        np.testing.assert_allclose(found["mean_field"].sds[name].mean(), 1 / np.sqrt(precision[i, i]), rtol=0.05)
        exact = np.sqrt(np.linalg.inv(precision)[i, i])
        np.testing.assert_allclose(found["chosen"].sds[name].mean(), exact, rtol=0.05)
    assert {path.name for path in tmp_path.iterdir()} == {"calibration_chosen.png", "calibration_mean_field.png"}
    assert "too narrow (sds about 0." in " ".join(capsys.readouterr().out.split())
