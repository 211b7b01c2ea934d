"""Floor 2: what is live: token slots, cooldowns, rate windows, concurrency. In memory; rebuilt from rows at start."""
