"""Prices, in ticks."""

from decimal import Decimal

from proxy.domain.money import FREE, Price, ticks
from proxy.domain.orders import Kind, Order

PRICE = Price(
    per_second={"480p": ticks(Decimal("0.05")), "720p": ticks(Decimal("0.07"))}, per_image=ticks(Decimal("0.002"))
)


def order(resolution: str) -> Order:
    return Order(Kind.VIDEO, "m", "m", "p", duration=5, resolution=resolution)


def test_the_list_price_is_seconds_by_rate_and_images() -> None:
    assert PRICE.cost(order("480p"), 0) == 2_500_000_000  # a public log has just this figure for 5 s at 480p
    assert PRICE.cost(order("480p"), 1) == 2_520_000_000


def test_an_unlisted_resolution_is_held_at_the_dearest_rate() -> None:
    assert PRICE.cost(order("1080p"), 0) == PRICE.cost(order("720p"), 0)
    assert FREE.cost(order("480p"), 1) == 0


def test_the_charge_is_the_cost_by_the_multiplier_exact_to_the_tick() -> None:
    assert Price({}, multiplier=Decimal("1.1")).charge(10_000_000_005) == 11_000_000_006
    assert ticks(Decimal("0.00000000005")) == 1  # rounded half up
