"""Tenants: the customers. Limits and money of tenants come with their own capability; today there is `default`."""

from dataclasses import dataclass

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    name: str
    weight: int = 1
