"""The whole admin API."""

from proxy.web.admin import audit, jobs, keys, operations, proxies, tokens

ROUTES = [
    *keys.ROUTES,
    *tokens.ROUTES,
    *proxies.ROUTES,
    *jobs.ROUTES,
    *operations.ROUTES,
    *audit.ROUTES,
]
