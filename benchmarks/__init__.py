"""What the gateway costs and how fast it is, measured beside a baseline in the same run: `python -m benchmarks`."""
