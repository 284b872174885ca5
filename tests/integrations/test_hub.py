"""Upload to a hub data set, by a stand-in for the hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from alignbench.errors import RunError, UsageError
from alignbench.integrations.hub import check_name, upload


@pytest.fixture
def hub(monkeypatch):
    told = []
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda *a, **k: told.append((a, k)))
    monkeypatch.setattr(huggingface_hub, "upload_folder", lambda **k: told.append(k) or "https://hub/commit")
    return told


def test_only_the_files_named_go_up_into_a_private_data_set(hub):
    out = Path("out")
    assert upload("me/results", out, [out / "a.csv", out / "data" / "b.json"]) == "https://hub/commit"
    (repository, made), sent = hub
    assert repository == ("me/results",) and made == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert sent["allow_patterns"] == ["a.csv", "data/b.json"] and sent["repo_type"] == "dataset"


def test_without_a_token_nothing_is_asked_of_the_hub(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UsageError, match="no token; set HF_TOKEN"):
        upload("me/results", Path("out"), [])
    assert hub == []


def test_what_the_hub_refuses_is_one_line(hub, monkeypatch):
    def refuse(**words):
        raise ValueError("403 Forbidden:\n" + "you may not " * 100)

    monkeypatch.setattr(huggingface_hub, "upload_folder", refuse)
    with pytest.raises(RunError) as error:
        upload("me/results", Path("out"), [])
    line = str(error.value)
    assert line.startswith("--push_to_hub me/results: ValueError: 403 Forbidden: you may not")
    assert "\n" not in line and len(line) < 400


@pytest.mark.parametrize("name", ["results", "me/", "a/b/c", "me/re sults", ""])
def test_names_of_repositories(name):
    with pytest.raises(UsageError, match="must be ORG/NAME"):
        check_name(name, "--dataset")
