# SPDX-License-Identifier: MIT
"""What a plain scalar of YAML stands for, as docker compose's reader (go-yaml v3) takes it.

That is neither YAML 1.1 nor 1.2: yes and 22:22 are texts, 0o17 and 017 are both fifteen, 089 is a float,
a number that does not fit is a float, and a date becomes a time.
"""

from composeapps.patterns import Pattern

_WORDS = {
    **dict.fromkeys(("true", "True", "TRUE"), True), **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_INTEGER = Pattern(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]*)|([1-9][0-9]*))")
_FLOAT = Pattern(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TIME = Pattern(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
                r"(?:(?P<t>[Tt ])([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:[.,][0-9]+)?"
                r"(?P<zone>Z|[-+][0-9]{2}:[0-9]{2})?)?")
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# Digits of the longest number that fits 64 bits, in base 2; what is longer is a float at best.
_LONGEST = 64


def resolve(text):
    """Return what a plain scalar stands for: None, a bool, an int, a float, or the text itself.

    A time (see ``is_time``) is returned as its text.
    """
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if first == ".":
        return _float(text)
    if first not in "+-0123456789" or is_time(text):
        return text
    plain = text.replace("_", "")
    number = integer(plain)
    if number is None:
        number = _float(plain)
    return text if isinstance(number, str) else number


def integer(plain):
    """Return the int that a text stands for, None when it is none or does not fit 64 bits."""
    match = _INTEGER.fullmatch(plain)
    if not match:
        return None
    sign, sixteen, two, eight, ten = match.groups()
    digits, base = next((digits, base) for digits, base in ((sixteen, 16), (two, 2), (ten, 10), (eight, 8))
                        if digits is not None)
    if eight == "" and plain[-1] in "oO":
        return None
    digits = digits.lstrip("0")
    if len(digits) > _LONGEST:
        return None
    number = int(digits or "0", base) * (-1 if sign == "-" else 1)
    limit = 2**63 if sign else 2**64
    return number if -(2**63) <= number < limit else None


def _float(plain):
    """Return the float that a text stands for, the text when it is none or is out of range."""
    if not _FLOAT.fullmatch(plain):
        return plain
    number = float(plain)
    return plain if number in (float("inf"), float("-inf")) else number


def is_time(text):
    """Tell whether a plain scalar is a date, or a date and a time, to docker compose's reader."""
    match = _TIME.fullmatch(text)
    if not match:
        return False
    year, month, day, _, hour, minute, second, zone = match.groups()
    if match["t"] and (match["t"] == " ") != (zone is None):
        return False
    year, month, day = int(year), int(month), int(day)
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or not 1 <= day <= _DAYS[month - 1] + leap:
        return False
    if match["t"] and (int(hour) > 23 or int(minute) > 59 or int(second) > 59):
        return False
    return zone in (None, "Z") or (int(zone[1:3]) <= 24 and int(zone[4:]) <= 60)
