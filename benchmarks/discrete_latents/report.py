"""Tables of what was measured."""

from typing import Any

from benchmarks.discrete_latents.fits import within
from benchmarks.reporting import table

Records = dict[str, dict[str, Any]]


def shown(value: Any, digits: int = 3) -> str:
    """A number for a table, "-" for none."""
    if isinstance(value, dict):
        return ", ".join(f"{name} ({count})" for name, count in value.items())
    return f"{value:.{digits}g}" if isinstance(value, float | int) else str("-" if value is None else value)


def ratio(record: dict[str, Any], over: str, under: str) -> float | None:
    """One figure over another; None where either is missing."""
    a, b = record.get(over), record.get(under)
    return a / b if a and b else None


def fits(records: Records) -> str:
    """Errors against the references."""
    rows = []
    for name, r in records.items():
        if "failed" in r:
            rows.append(
                [name, "no", r["failed"][:110], *map(shown, ([r.get("plan")] * 1 + [r.get("seconds")])), "-", "-"]
            )
            continue
        worst = f"{r['mean']:+.3f} ({r['mean_of']}), {r['sd_ratio']:.3f} ({r['sd_of']})"
        told = [shown(r["plan"]), shown(r["seconds"]), r["status"], r["verdict"]]
        rows.append([name, "yes" if within(r) else "no", worst, *told])
    header = ["case", "within", "mean in sds, sd ratio: the worst", "estimators (sites)", "s", "status", "verdict"]
    return table(header, rows)


def forward(records: Records) -> str:
    """Against the forward algorithm by hand."""
    rows = []
    for name, r in records.items():
        elbo, own = r.get("checked_elbo"), r.get("elbo")
        differ = [None if e is None else e - r["hand_elbo"] for e in (own, elbo)]
        figures = [*differ, r.get("hand_us"), r.get("fit_us"), ratio(r, "fit_us", "hand_us")]
        compiled = [r.get("hand_compile_s"), r.get("compile_s")]
        rows.append([name, *map(shown, figures), *map(shown, compiled), r.get("failed", r.get("plan", "-"))[:110]])
    header = ["T x states", "ELBO less by hand's", "the same, checked", "us by hand", "us", "ratio"]
    return table([*header, "compile s by hand", "compile s", "estimator"], rows)


def enumerated(records: Records) -> str:
    """Against NumPyro's `TraceEnum_ELBO`."""
    rows = []
    for name, r in records.items():
        losses = r.get("fit_loss"), r.get("numpyro_loss")
        above = None if None in losses else losses[0] - losses[1]
        failed = "; ".join(r[key][:110] for key in ("fit_failed", "numpyro_failed") if key in r)
        figures = [r.get("numpyro_us"), r.get("fit_us"), ratio(r, "fit_us", "numpyro_us"), above]
        rows.append([name, *map(shown, figures), failed or "-"])
    return table(["case", "us by NumPyro", "us", "ratio", "loss less NumPyro's", "failed"], rows)


def large(records: Records) -> str:
    """Large data."""
    keys = ["steps_per_second", "step_gb", "peak_gb", "loss", "plan"]
    rows = [[name, *(shown(r.get(key), 4) for key in keys), r.get("failed", "-")[:110]] for name, r in records.items()]
    return table(
        ["case", "steps per second", "GB of the fit", "GB of the process", "loss", "estimator", "failed"], rows
    )


TABLES = {"fits": fits, "forward": forward, "enumerated": enumerated, "large": large}
