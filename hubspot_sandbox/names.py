"""Deal names, amounts and close dates: the pools that deals' own columns point into."""

from itertools import product
from typing import Final

from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.config import SandboxConfig

Pool = list[str | None]
DAY_MS: Final = 86_400_000
# Codes at the head of the amount and close date pools.
NOTHING: Final = 0
CLEARED: Final = 1
BROKEN: Final = 2
ZERO: Final = 3
_RESERVED: Final = 4
LONGEST_DEAL_DAYS: Final = 200
_ODD_SHARE: Final = 50

_PLACES: Final = [
    "Northwind",
    "Contoso",
    "Fabrikam",
    "Åkerlund",
    "Müller",
    "Søndag",
    "Łódź",
    "Garcia",
    "Tanaka",
    "Oyelaran",
]
_TRADES: Final = [
    "Logistics",
    "Foods",
    "Energy",
    "Health",
    "Software",
    "Steel",
    "Textiles",
    "Robotics",
    "Films",
    "Bank",
]
_FORMS: Final = ("AB", "GmbH", "Inc.", "SpA", "& Sons", "Ltd")
_WORKS: Final = (
    "new business",
    "renewal",
    "expansion",
    "pilot",
    "upsell 2.0",
    "POC",
    "support plan",
    "migration",
)
_TERMS: Final = ("2023", "2024", "2025", "Q1", "Q2", "Q3", "Q4", "- v2")
_ODD: Final = (
    'Quoted "platinum" deal',
    "Back\\slash Inc \\ C:\\temp\\new",
    "Line one\nline two",
    "Tab\tseparated\tname",
    "Emoji 🚀🇸🇪 deal 👩‍💻",
    "東京商事 \u2013 年間契約",
    "شركة الاختبار",
    "Ünïcødé Ñandú",
    "Comma, semicolon; pipe|",
    "  leading and trailing  ",
    "Robert'); DROP TABLE deals;--",
    "<script>alert(1)</script>",
    "null",
    "NULL",
    "\\N",
    "100 %s {braces} %(x)s",
    "Line\u2028separator and nbsp\u00a0here",
    "combining e\u0301 versus \u00e9",
    "carriage\r\nreturn",
    "L" + "o" * 240 + "ng name",
)


def name_pool() -> Pool:
    """None, then several thousand plain names with odd ones strewn in."""
    pool: Pool = [None]
    plain = product(_PLACES, _TRADES, _FORMS, _WORKS, _TERMS)
    for place, (where, trade, form, work, term) in enumerate(plain):
        # A prime stride picks a varied seventh of the combinations.
        if place % 7 == 0:
            pool.append(f"{where} {trade} {form} - {work} {term}")
        if place % _ODD_SHARE == 0:
            pool.append(_ODD[place // _ODD_SHARE % len(_ODD)])
    return pool


def amount_pool() -> Pool:
    """Amounts in the notations HubSpot prints."""
    pool: Pool = [None, "", "134376773869;137654776000", "0"]
    for step in range(4_000):
        cents = (step * 7_919 + 125) % 9_999_999
        pool.append(str(cents // 100) if step % 3 == 0 else f"{cents // 100}.{cents % 100:02d}")
        if step % 400 == 0:
            pool += ["6.800000000000001", f"{step + 1}.5E3", "-120.50", "1.05E5"]
    return pool


def close_pool(config: SandboxConfig) -> Pool:
    """One close date per day of the account's life and beyond; some without milliseconds."""
    pool: Pool = [None, "", str(config.start_ms + DAY_MS), "2024-02-29T23:59:59.999Z"]
    days = (config.end_ms - config.start_ms) // DAY_MS + LONGEST_DEAL_DAYS
    for day in range(days + 1):
        moment = config.start_ms + day * DAY_MS + day * 7_654_321 % DAY_MS
        text = iso_ms(moment)
        pool.append(text[:19] + "Z" if day % 10 == 0 else text)
    return pool


def close_code(day: int) -> int:
    """The pool code of a day, counted from the account's first."""
    return _RESERVED + day
