"""Models that act: tools, and what they do with them (工具与智能体).

Chapter: 28
"""
