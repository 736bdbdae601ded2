"""Before and beside the transformer: n-grams, a first network, a coder."""
