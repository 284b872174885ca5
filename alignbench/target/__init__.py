"""What is wanted: constraints, and the target p that the base becomes under them. Floor 1.

`constraint` is one thing asked of a feature; `target` is the base reweighted by all of them, with λ once it is fitted;
`truth` has exact values for worlds that can be listed, and is imported by itself, since it needs a generator.

May import: floor 0 and, in `truth` alone, `generators`. Nothing else here knows a model, a text or how a feature is
computed: a target works on arrays of feature values by name.

To add a kind of constraint, enter it in `constraint.Kind`, say in `Constraint` when it may be asked, in
`Target.log_ratio` what it adds to log P − log a, in `Target.log_bound` the most that it can add, and in `task/keys.py`
how a file asks it.
"""

from alignbench.target.constraint import Constraint, Kind
from alignbench.target.target import Target

__all__ = ["Constraint", "Kind", "Target"]
