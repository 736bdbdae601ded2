"""Measuring: peak memory, and the metrics of a model."""
