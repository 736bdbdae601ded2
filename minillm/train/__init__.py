"""Training (训练): from the fifteen lines that chapters 02 to 04 share, to a run you can kill.

Chapter: 02
"""
