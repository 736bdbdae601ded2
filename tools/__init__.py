"""The builders' machinery. Nothing in `minillm/` imports it, and no learner needs it."""
