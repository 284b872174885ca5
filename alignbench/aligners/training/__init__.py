"""Aligners that train a policy. Part of `aligners`, one file an aligner.

    recipe.py     the hyper-parameters that all share;  method.py  what one file brings: draws and a loss
    loop.py       draws, loss, gradient, step; resumed from its folder;  budget.py  how long, at which rate
    passes.py     log π and gradients in parts;  losses.py  pure functions of (log π, log a, log P − log a)
    work.py       draws made and scored for it;  ahead.py  for several steps at once;  batch.py  what a step learns from
    folder.py     what a training leaves;  stopping.py  early stops;  processes.py  several that train together

    dpg.py        min KL(p‖π) by importance-weighted draws
"""

from alignbench.aligners.training import dpg as dpg
