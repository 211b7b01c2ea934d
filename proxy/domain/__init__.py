"""Floor 1: the rules. Standard library only: no I/O, no clock, no randomness, no logging.

Moments are Unix seconds (`float`), durations are seconds, money is in ticks (1 USD = 10^10), unless a name
says otherwise.
"""
