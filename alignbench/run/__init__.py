"""A run: what a user says, looked up and carried out, task by task and generator by generator. Floor 5.

In the order in which a run uses them: `settings` is all that a user may say (`values` are its types and their checks,
`words` reads it from a command line, a file and the environment), `plan` looks it up without loading a model, `models`
loads generators, `runner` carries it out. `task_run` is one task with one seed, `measured` makes the rows of one
generator on it, `rows` says what a row is, `writer` writes its files, `outcome` collects all rows and failures.
`rescore` makes rows again from stored evidence; `provenance` says which versions and which machine.

May import: floors 0 to 4, and of `reports` the columns of the tidy table. `settings` and `words` load neither torch nor
pandas, so that `--help` is quick. To add an option, add a field to `settings.Settings`.
"""
