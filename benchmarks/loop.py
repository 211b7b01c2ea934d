"""The event loop: one and the same for the gateway, the baselines and the load."""

import asyncio


def runner() -> asyncio.Runner:
    """Return a runner on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def name() -> str:
    """Return which loop that is."""
    with runner() as running:
        return type(running.get_loop()).__module__.partition(".")[0]
