"""Generators side by side: `alignbench compare`. Part of `reports`, floor 5.

`contenders` finds what is compared in folders and by labels, `common_draws` what two of them share; `compared` has the
paired differences of each number, `shifts` the prompts that moved and draws to read, `regression` the gate of CI,
`checkpoints` a series over training; `text` renders them.
"""
