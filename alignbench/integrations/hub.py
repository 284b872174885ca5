"""Upload of exported files to a data set on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from alignbench.errors import RunError, UsageError


def check_name(name: str, option: str) -> str:
    """The name of a repository, ORG/NAME; raises UsageError where it is none."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"{option} {name}: must be ORG/NAME, such as my-name/alignbench-results")
    return name


def check_token() -> None:
    """Raise UsageError where nothing may be uploaded."""
    import huggingface_hub as hub

    if hub.get_token() is None:
        raise UsageError("--push_to_hub: no token; set HF_TOKEN to one that may write, or run `hf auth login`")


def upload(repository: str, folder: Path, files: Sequence[Path]) -> str:
    """Upload `files` below `folder` to the data set `repository`, made private where it does not exist; its address.

    The token is that of the environment (HF_TOKEN) or of `hf auth login`. Raises UsageError without one, and RunError
    where the hub refuses or cannot be reached.
    """
    import huggingface_hub as hub

    check_token()
    try:
        hub.create_repo(repository, repo_type="dataset", private=True, exist_ok=True)
        done = hub.upload_folder(
            repo_id=repository, repo_type="dataset", folder_path=folder, commit_message="Results of alignbench",
            allow_patterns=[path.relative_to(folder).as_posix() for path in files],
        )  # fmt: skip
    except Exception as error:  # of the hub, of the network or of the disk
        told = shorten(str(error), 300, placeholder=" …")
        raise RunError(f"--push_to_hub {repository}: {type(error).__name__}: {told}") from error
    return str(done)
