"""The wire shapes that clients speak: bodies to orders, jobs to bodies, errors to envelopes."""
