"""Numbers as a person says them: rounded to what is known of them, without exponents."""

from __future__ import annotations

from math import floor, inf, isfinite, isnan, log10

_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
_LARGEST = 1e15  # beyond, only the order of magnitude is said
_DECIMALS = 4  # what is smaller than the last of them is said to be so small


def how_many(value: int, what: str = "") -> str:
    """A whole number, and what is counted, in the plural where it is due.

    >>> how_many(12000, "step")
    '12,000 steps'
    """
    return f"{value:,} {what}{'s' * (value != 1)}" if what else f"{value:,}"


def number(value: float, digits: int = 2) -> str:
    """A number to so many significant digits.

    >>> number(0.0123), number(1234.5, 3), number(3.4e80), number(-2.5e6), number(1e-7)
    ('0.012', '1,230', 'more than 10^80', '-2.5 million', 'less than 0.0001')
    """
    if not isfinite(value):
        return "NaN" if isnan(value) else "infinity" if value > 0 else "minus infinity"
    if 0 < abs(value) < 10**-_DECIMALS:
        return f"less than {10**-_DECIMALS:.{_DECIMALS}f}"
    if abs(value) >= _LARGEST:
        power = floor(log10(abs(value)))
        return f"more than 10^{power}" if value > 0 else f"less than -10^{power}"
    rounded = float(f"{value:.{digits - 1}e}")  # before the unit is chosen: 999,999 is a million to two digits
    unit, word = next(((u, f" {w}") for u, w in _WORDS if abs(rounded) >= u), (1.0, ""))
    scaled = rounded / unit
    decimals = 0 if scaled == 0 else max(0, digits - 1 - floor(log10(abs(scaled))))
    said = f"{scaled:,.{min(decimals, _DECIMALS)}f}"
    return (said.rstrip("0").rstrip(".") if "." in said else said) + word


def nats(value: float, digits: int = 2) -> str:
    """A number of nats.

    >>> nats(0.0041), nats(1.0)
    ('0.0041 nats', '1 nat')
    """
    if value == inf:
        return "infinitely many nats"
    said = number(value, digits)
    return f"{said} nat{'s' * (said != '1')}"


def with_error(value: float, error: float) -> tuple[str, str]:
    """A number and its standard error to the same place: the second digit of the error, of at most four decimals.

    >>> with_error(-31.41592, 0.0234)
    ('-31.416', '0.023')
    """
    if not (isfinite(value) and isfinite(error) and max(abs(value), error) < _LARGEST and error > 0):
        return number(value, 6), number(error)
    decimals = min(max(1 - floor(log10(error)), 0), _DECIMALS)
    said = f"{value:,.{decimals}f}"
    zero = float(said.replace(",", "")) == 0
    return said.lstrip("-") if zero else said, f"{error:,.{decimals}f}" if error >= 10**-_DECIMALS else number(error)
