"""Fewer bits a weight (量化).

Functions applied to a model that is trained.

Chapter: 18
"""
