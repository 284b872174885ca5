"""Integrations: alignbench inside the tools that users already have, and those inside alignbench.

Lives here: one file a tool, named after it; nothing is imported before it is asked for, and a tool that is not
installed is one line that says what to install. May import: every floor below.
"""
