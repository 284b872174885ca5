"""Draw, measure, score: a generator on a task → Evidence. GPU work ends here. Floor 4.

`bench` draws from a generator on one task and scores the draws under base and target; `references` are the fitted
target and the base draws that all generators of the task share; `evidence` is everything about one generator. `trust`
says when rescoring contradicts sampling, `cost` what the draws took, `cut` what fewer draws would have given.

May import: floors 0 to 3 and `store`; never pandas. To add a quantity that needs a model, compute it in `evidence`,
give it a field in `types.Scored` or `types.Evidence`, and raise `references.EVIDENCE`; one that needs only arrays is a
metric.
"""
