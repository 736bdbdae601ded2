"""Using a model that is trained: it writes text.

Chapter: 04
"""
