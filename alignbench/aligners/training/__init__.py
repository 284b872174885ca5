"""Aligners that train a policy. Part of `aligners`, one file an aligner.

    recipe.py     an aligner that trains;  options.py  the hyper-parameters that all share
    method.py     what one file brings: draws and a loss
    loop.py       draws, loss, gradient, step; resumed from its folder;  budget.py  how long, at which rate
    passes.py     log π and gradients in parts;  losses.py  pure functions of (log π, log a, log P − log a)
    work.py       draws made and scored for it;  ahead.py  for several steps at once;  batch.py  what a step learns from
    folder.py     what a training leaves;  at_step.py  as a checkpoint has it;  stopping.py  early stops
    processes.py  several that train together;  cells.py  what a draw is, as a text

    sft.py        maximum likelihood on draws of p (`of_target.py`), or on a task's texts (`corpus.py`)
    sft_control.py  likelihood of train text, with a control loss
    control_code.py  conditioned on codes of what is asked
    dpg.py        KL(p‖π) by importance weights (`prefixes.py`: a baseline by prefix)
    gdc.py        with a proposal that adapts;  cdpg.py  Z_c of own draws
    f_dpg.py      other divergences;  prompt_tuning.py  of a soft prompt
    reinforce.py  rewards with the KL to the base in them (`rewards.py`);  grpo.py  standardised
    ppo.py        clipped, with values of prefixes (`values.py`)
    soft_q.py     Q of each token as a guide (`backups.py`);  q_learning.py  with a hard backup
    preferences.py  DPO and its family, on pairs of base draws (`pairs.py`, `preference_losses.py`)
    contrastive.py  a draw of p among base draws;  distil.py  on draws of any generator
    trl.py        the trainers of trl, as peers

To add one, write a dataclass that inherits `Trained`, register it, and give its `Method`: the draws of each step, and a
loss of log π by token. It may import floors 0 and 1 and the rest of `aligners`.
"""

from alignbench.aligners.training import cdpg as cdpg
from alignbench.aligners.training import contrastive as contrastive
from alignbench.aligners.training import control_code as control_code
from alignbench.aligners.training import distil as distil
from alignbench.aligners.training import dpg as dpg
from alignbench.aligners.training import f_dpg as f_dpg
from alignbench.aligners.training import gdc as gdc
from alignbench.aligners.training import grpo as grpo
from alignbench.aligners.training import ppo as ppo
from alignbench.aligners.training import preferences as preferences
from alignbench.aligners.training import prompt_tuning as prompt_tuning
from alignbench.aligners.training import q_learning as q_learning
from alignbench.aligners.training import reinforce as reinforce
from alignbench.aligners.training import sft as sft
from alignbench.aligners.training import sft_control as sft_control
from alignbench.aligners.training import soft_q as soft_q
from alignbench.aligners.training import trl as trl
