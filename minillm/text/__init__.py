"""From characters to numbers and back: how text is cut into tokens.

Chapter: 01
"""
