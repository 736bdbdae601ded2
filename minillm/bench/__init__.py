"""Benchmarks, one file each; `minillm bench NAME` runs one and prints its table.

Chapter: app
"""
