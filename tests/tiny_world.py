"""A task on three words whose every continuation can be listed, for tests that measure without a run's folders."""

from alignbench.generators.exact.world import exact

BASE = exact(words="sun rain wind", seed=3)
PROMPTS = ("rain", "sun wind")
TASK = """
name: tiny
version: 1
summary: A world of three words.
prompts: [rain, sun wind]
max_tokens: 3
draws: 200
features:
  bright: {feature: contains_any, words: [sun]}
  windy: {feature: contains_any, words: [wind]}
target:
"""
BRIGHT = "  - {feature: bright, always: true}\n"
