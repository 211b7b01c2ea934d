"""Prices and what follows from them, in ticks: 1 USD = 10^10 ticks (xAI's `cost_in_usd_ticks`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from proxy.domain.orders import Order

TICKS_PER_USD = 10_000_000_000


def ticks(usd: Decimal) -> int:
    return int((usd * TICKS_PER_USD).to_integral_value(ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class Price:
    """What the upstream asks for a video model."""

    per_second: Mapping[str, int]  # ticks by resolution
    per_image: int = 0  # ticks for each input image
    multiplier: Decimal = Decimal(1)  # what the tenant pays for each unit of cost

    def cost(self, order: Order, images: int) -> int:
        """Return the price of the order; at a resolution without a price, that of the dearest."""
        rate = self.per_second.get(order.resolution, max(self.per_second.values(), default=0))
        return order.duration * rate + images * self.per_image

    def charge(self, cost: int) -> int:
        return int((cost * self.multiplier).to_integral_value(ROUND_HALF_UP))


FREE = Price(per_second={})
