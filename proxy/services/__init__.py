"""Floor 3: the use cases. Async; no HTTP, no SQL text."""
