"""Models before and beside the transformer: n-grams, a first network, and a coder."""
