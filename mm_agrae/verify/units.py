"""Units of measure: their names, and exact conversion within a dimension.

A canonical unit is a name with an optional power, and one more below a stroke: "cm", "cm2", "km/h", "m/s2".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

_DIMENSION_OF = {"length": 1, "volume": 3}
# name: (dimension, size in the base unit of the dimension, words). "" is a unit that says nothing ("units").
_TABLE: dict[str, tuple[str, Fraction, str]] = {
    "": ("", Fraction(1), "unit units"),
    "%": ("share", Fraction(1), "% percent pct percentage"),
    "°": ("angle", Fraction(1), "° degree degrees deg 度"),
    "°C": ("celsius", Fraction(1), "°c celsius 摄氏度"),
    "°F": ("fahrenheit", Fraction(1), "°f fahrenheit"),
    "rad": ("radian", Fraction(1), "rad radian radians"),
    "nm": ("length", Fraction(1, 10**9), "nm nanometer nanometers nanometre nanometres 纳米"),
    "um": ("length", Fraction(1, 10**6), "um μm µm micrometer micrometers micrometre micrometres micron microns 微米"),
    "mm": ("length", Fraction(1, 1000), "mm millimeter millimeters millimetre millimetres 毫米"),
    "cm": ("length", Fraction(1, 100), "cm centimeter centimeters centimetre centimetres 厘米"),
    "dm": ("length", Fraction(1, 10), "dm decimeter decimeters decimetre decimetres 分米"),
    "m": ("length", Fraction(1), "meter meters metre metres 米"),
    "km": ("length", Fraction(1000), "km kilometer kilometers kilometre kilometres 千米 公里"),
    "in": ("length", Fraction(254, 10000), "inch inches in"),
    "ft": ("length", Fraction(3048, 10000), "ft feet foot"),
    "yd": ("length", Fraction(9144, 10000), "yd yard yards"),
    "mi": ("length", Fraction(1609344, 1000), "mi mile miles"),
    "ml": ("volume", Fraction(1, 10**6), "ml milliliter milliliters millilitre millilitres 毫升"),
    "L": ("volume", Fraction(1, 1000), "liter liters litre litres 升"),
    "mg": ("mass", Fraction(1, 1000), "mg milligram milligrams 毫克"),
    "g": ("mass", Fraction(1), "gram grams 克"),
    "kg": ("mass", Fraction(1000), "kg kilogram kilograms 千克 公斤"),
    "t": ("mass", Fraction(10**6), "ton tons tonne tonnes 吨"),
    "lb": ("mass", Fraction(45359237, 100000), "lb lbs pound pounds"),
    "oz": ("mass", Fraction(45359237, 1600000), "oz ounce ounces"),
    "ms": ("time", Fraction(1, 1000), "ms millisecond milliseconds 毫秒"),
    "s": ("time", Fraction(1), "sec second seconds 秒"),
    "min": ("time", Fraction(60), "min minute minutes 分钟"),
    "h": ("time", Fraction(3600), "hour hours hr hrs 小时"),
    "day": ("time", Fraction(86400), "day days 天"),
    "week": ("time", Fraction(604800), "week weeks 周"),
    "month": ("months", Fraction(1), "month months 月"),  # of no fixed length in days
    "year": ("months", Fraction(12), "year years 年"),
    "$": ("dollar", Fraction(1), "$ dollar dollars usd"),
    "cent": ("dollar", Fraction(1, 100), "cent cents"),
    "€": ("euro", Fraction(1), "€ euro euros"),
    "£": ("sterling", Fraction(1), "£ gbp"),
    "¥": ("yuan", Fraction(1), "¥ yuan 元"),
    "N": ("force", Fraction(1), "newton newtons 牛"),
    "kN": ("force", Fraction(1000), "kn"),
    "J": ("energy", Fraction(1), "joule joules 焦"),
    "eV": ("energy", Fraction(1602176634, 10**28), "ev"),
    "kJ": ("energy", Fraction(1000), "kj"),
    "W": ("power", Fraction(1), "watt watts"),
    "kW": ("power", Fraction(1000), "kw"),
    "V": ("voltage", Fraction(1), "volt volts"),
    "mA": ("current", Fraction(1, 1000), "ma milliampere milliamperes milliamp milliamps"),
    "A": ("current", Fraction(1), "ampere amperes amp amps"),
    "Ω": ("resistance", Fraction(1), "Ω ohm ohms"),
    "Hz": ("frequency", Fraction(1), "hz hertz"),
    "kHz": ("frequency", Fraction(1000), "khz kilohertz"),
    "MHz": ("frequency", Fraction(10**6), "mhz megahertz"),
    "GHz": ("frequency", Fraction(10**9), "ghz gigahertz"),
    "Pa": ("pressure", Fraction(1), "pa pascal pascals"),
    "K": ("kelvin", Fraction(1), "kelvin kelvins"),
    "C": ("charge", Fraction(1), "coulomb coulombs"),
}
_NAMES = {word: name for name, (_, _, words) in _TABLE.items() for word in words.split()}
_LETTERS = frozenset("mgshLNJWVAKC")  # read as units only where the target is a number
_RATE = re.compile(r"(.+?)\s*(?:/|(?<![a-z])per(?![a-z]))\s*(.+)")
_PART = re.compile(r"(square |sq\.? ?|cubic |平方|立方)?([^\d^{}\s]+)\s*\^?\{?([23])?\}?")
_COMMON_RATES = frozenset({"m/s", "m/s2", "km/h", "km/s", "cm/s", "g/cm3", "kg/m3", "m/min", "L/min", "mph"})
_SQUARES = {"s": "2", "平": "2", "c": "3", "立": "3"}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A unit taken apart: its dimension (base dimensions and their powers), and its size in base units."""

    dimension: tuple[tuple[str, int], ...]
    size: Fraction


def unit_name(word: str, *, numeric: bool, chinese: bool = True) -> str | None:
    """The canonical unit that a word or abbreviation names; "" for a nameless unit; None when it is no known unit.

    Args:
        word: "cm", "square feet", "km/h", "m^{2}", "meters per second".
        numeric: Single letters ("m") are units and no variables.
        chinese: Chinese names are known.
    """
    if not chinese and any("\u4e00" <= char <= "\u9fff" for char in word):
        return None
    if word.lower() == "mph":
        return "mi/h"
    rate = _RATE.fullmatch(word)
    if rate is None:
        return _part_name(word, numeric=numeric)
    above, below = _part_name(rate[1], numeric=True), _part_name(rate[2], numeric=True)
    if not above or not below:
        return None
    name = f"{above}/{below}"
    is_spelled = len(rate[1]) > 2 or len(rate[2]) > 2
    return name if numeric or is_spelled or name in _COMMON_RATES else None


def _part_name(word: str, *, numeric: bool) -> str | None:
    shape = _PART.fullmatch(word)
    if shape is None:
        return None
    prefix, base, power = shape[1] or "", shape[2], shape[3] or ""
    name = _NAMES.get(base.lower())
    if name is None and numeric and base in _LETTERS:
        name = base
    if name is None:
        return None
    power = power or _SQUARES.get(prefix[:1], "")
    return name + power if name else ""


@lru_cache(maxsize=1024)
def measure(unit: str) -> Measure | None:
    """Dimension and size of a canonical unit; None for a name that is no known unit."""
    powers: dict[str, int] = {}
    size = Fraction(1)
    for place, part in enumerate(unit.split("/")):
        name = part.rstrip("23")
        power = int(part[len(name) :] or 1) * (1 if place == 0 else -1)
        if name not in _TABLE:
            return None
        dimension, base_size, _ = _TABLE[name]
        size *= base_size**power
        base = "length" if dimension == "volume" else dimension
        powers[base] = powers.get(base, 0) + power * _DIMENSION_OF.get(dimension, 1)
    return Measure(dimension=tuple(sorted(powers.items())), size=size)


def conversion(unit: str, to: str) -> Fraction | None:
    """How many of the unit `to` one `unit` is: 100 for "m" to "cm".

    None across dimensions ("m" to "s"), and where one name is no known unit ("apple" to "orange").
    """
    here, there = measure(unit), measure(to)
    if here is None or there is None:
        return None
    return here.size / there.size if here.dimension == there.dimension else None
