"""The model itself: counted first, then built piece by piece.

Chapter: 00
"""
