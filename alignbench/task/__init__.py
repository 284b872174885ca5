"""Tasks: plain YAML that says what is asked, as plain data. Floor 3.

`task` is what a task is; `finding` takes names and patterns to files; `keys` is what a file may say, for people and, as
JSON schema, for editors; `reader` takes a file to a task, strictly, and every error names the file and the line;
`prompts` reads prompts and references, `records` the datasets they come from.

May import: floors 0 to 2, never torch, transformers or, but inside a function, pandas. A name of the registries
(feature, metric, aligner, generator) is looked up here once its room is loaded, and nothing is sampled or built.

To add a task, put a YAML file named after it into `tasks/` (anywhere else: `--include_path`), and see `alignbench
validate`. To add a key, give it a field with a description in `keys`, let `reader` put it into the `Task`, and enter it
in `Task.hash` if numbers depend on it.
"""

from alignbench.task.finding import all_tasks, builtin_folder, find_tasks, headline, tags, task_files
from alignbench.task.reader import load_task
from alignbench.task.task import Task

__all__ = ["Task", "all_tasks", "builtin_folder", "find_tasks", "headline", "load_task", "tags", "task_files"]
