from decimal import Decimal

from hubspot_deals.cli.demo import StageTotal, totals_by_stage


def test_totals_are_exact_and_by_pipeline_and_stage() -> None:
    records = [
        {"pipeline": "p", "dealstage": "a", "amount": "0.10"},
        {"pipeline": "p", "dealstage": "a", "amount": "0.20", "amount_in_home_currency": "0.30"},
        {"pipeline": "q", "dealstage": "a", "amount": None},
        {"pipeline": "p", "dealstage": None, "amount": ""},
        {"pipeline": "q", "dealstage": "a", "amount": "1.000,00"},
        {"pipeline": "q", "dealstage": "a", "amount": "NaN"},
    ]

    totals = totals_by_stage(records)

    assert totals == {
        ("p", "a"): StageTotal(2, Decimal("0.40")),
        ("q", "a"): StageTotal(3, Decimal(0), unreadable=2),
        ("p", ""): StageTotal(1, Decimal(0)),
    }
