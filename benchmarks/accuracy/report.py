"""Tables of what was measured, and what is to be seen in them."""

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.reporting import table

Result = Mapping[str, Any]

WRONG, RIGHT = 0.15, 0.08  # W above which a fit must warn, and below which it should not
HEADER = (
    *("case", "dims", "W", "W plain", "worst mean, sds", "worst log sd", "k-hat", "efficiency", "ELBO", "verdict"),
    *("rung", "evaluations", "first, s", "second, s"),
)
NUTS_HEADER = ("NUTS, s", "NUTS W", "R-hat", "NUTS / first", "NUTS / second")


def number(value: float | None, form: str = ".3f") -> str:
    """A number, or "-" for what is not known."""
    return "-" if value is None else format(value, form)


def row(name: str, result: Result, nuts: Result | None) -> list[str]:
    """One line of the table."""
    if "failed" in result:
        line = [name, *["-"] * 8, f"failed: {result['failed']}", *["-"] * 4]
    else:
        worst = result["score"]
        line = [
            name,
            str(result["dims"]),
            number(worst["W"]),
            number(result["plain"]["W"]),
            f"{number(worst['mean'])} {worst['mean_of']}",
            f"{number(worst['log_sd'])} {worst['log_sd_of']}",
            number(result["khat"], ".2f"),
            number(result["efficiency"], ".2f"),
            f"{number(result['elbo'], '.2f')} ± {number(result['elbo_se'], '.2f')}",
            result["verdict"] + ("" if not result["warned"] or result["verdict"] != "converged" else ", k-hat warns"),
            result["rung"] or "-",
            number(result["evaluations"], ",d"),
            number(result["first_s"], ".1f"),
            number(result["second_s"], ".2f"),
        ]
    return line + ([] if nuts is None else nuts_columns(result, nuts))


def nuts_columns(result: Result, nuts: Result) -> list[str]:
    """NUTS's own columns of the line."""
    if "failed" in nuts:
        return [f"failed: {nuts['failed']}", *["-"] * 4]
    ratios = ["-", "-"]
    if "failed" not in result:
        ratios = [f"{nuts['seconds'] / result[which]:.1f}" for which in ("first_s", "second_s")]
    return [number(nuts["seconds"], ".1f"), number(nuts["score"]["W"]), number(nuts["r_hat"]), *ratios]


def speed(results: Mapping[str, Result], nuts: Mapping[str, Result]) -> list[str]:
    """NUTS's time over that of a first and of a second fit: geometric mean, and the case where it is least."""
    both = [c for c in results if "failed" not in results[c] and "failed" not in nuts.get(c, {"failed": ""})]
    lines = []
    for which, label in (("first_s", "first fit"), ("second_s", "second fit")):
        ratios = {case: nuts[case]["seconds"] / results[case][which] for case in both}
        if ratios:
            mean = math.exp(sum(math.log(r) for r in ratios.values()) / len(ratios))
            least = min(ratios, key=lambda case: ratios[case])
            lines.append(f"{label}: NUTS takes {mean:.2f} times as long (geometric mean of {len(ratios)})")
            lines[-1] += f", least {ratios[least]:.2f} ({least})"
    return lines


def honesty(results: Mapping[str, Result]) -> list[str]:
    """The cases that are wrong without a word, and those that are right and warned of."""
    done = {case: result for case, result in results.items() if "failed" not in result}
    silent = [case for case, r in done.items() if not r["score"]["W"] <= WRONG and not r["warned"]]
    cried = [case for case, r in done.items() if r["score"]["W"] < RIGHT and r["warned"]]
    said = lambda cases: f"{len(cases)}" + (f" ({', '.join(cases)})" if cases else "")  # noqa: E731
    lines = [f"W above {WRONG} and no warning: {said(silent)}", f"a warning and W below {RIGHT}: {said(cried)}"]
    failed = [case for case in results if case not in done]
    return lines + ([f"failed: {said(failed)}"] if failed else [])


def references_table(results: Mapping[str, Result], nuts: Mapping[str, Result]) -> str:
    """The table of the reference posteriors and what is to be seen in it."""
    header = [*HEADER, *(NUTS_HEADER if nuts else ())]
    rows = [row(case, result, nuts.get(case) if nuts else None) for case, result in results.items()]
    return "\n".join([table(header, rows), "", *speed(results, nuts), *honesty(results)])


def changes(before: Mapping[str, Result], now: Mapping[str, Result]) -> list[str]:
    """What a former run said otherwise, of the cases of both."""
    lines: list[str] = []
    for case in now:
        if case not in before:
            lines.append(f"{case}: new")
            continue
        told = _told(before[case], now[case])
        lines += [f"{case}: {'; '.join(told)}"] if told else []
    return lines


def _told(old: Result, new: Result) -> list[str]:
    """The differences of one case that are more than noise."""
    if "failed" in old or "failed" in new:
        words = ["failed" if "failed" in r else "ran" for r in (old, new)]
        return [] if words[0] == words[1] else [f"{words[0]} -> {words[1]}"]
    told = []
    for label, key, size in (("W", "W", 0.01), ("worst mean", "mean", 0.05), ("worst log sd", "log_sd", 0.05)):
        a, b = old["score"][key], new["score"][key]
        told += [f"{label} {a:.3f} -> {b:.3f}"] if not abs(a - b) <= size else []
    noise = 3 * math.hypot(old["elbo_se"], new["elbo_se"])
    told += [f"ELBO {old['elbo']:.2f} -> {new['elbo']:.2f}"] if not abs(old["elbo"] - new["elbo"]) <= noise else []
    for label, key in (("verdict", "verdict"), ("warned", "warned"), ("rung", "rung"), ("evaluations", "evaluations")):
        told += [f"{label} {old[key]} -> {new[key]}"] if old[key] != new[key] else []
    for label, key in (("first", "first_s"), ("second", "second_s")):
        a, b = old[key], new[key]
        told += [f"{label} {a:.2f} s -> {b:.2f} s"] if max(a, b) > 1.3 * min(a, b) else []
    return told
