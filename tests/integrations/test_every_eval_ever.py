"""Records of Every Eval Ever 0.3.0, against the facts of its schema: names, types, what is required and allowed."""

from __future__ import annotations

import json
from math import nan

import jsonschema
import pytest
from published_rows import table, unit

from alignbench.files import dump
from alignbench.integrations.every_eval_ever import records

TEXT, NUMBER = {"type": "string"}, {"type": "number"}
DETAILS = {"type": "object", "additionalProperties": TEXT}
BOUND = {"oneOf": [NUMBER, {"enum": ["Infinity", "-Infinity"]}, {"type": "null"}]}


def closed(required, **optional):
    """An object of the fields `required`, and of these that may be there, and of no others."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required),
            "additionalProperties": False}  # fmt: skip


RESULT = closed(
    {
        "evaluation_name": TEXT,
        "source_data": closed({"dataset_name": TEXT, "source_type": {"const": "other"}}, additional_details=DETAILS),
        "metric_config": closed(
            {"lower_is_better": {"type": "boolean"}, "min_score": BOUND, "max_score": BOUND},
            metric_id=TEXT, metric_name=TEXT, score_type={"const": "continuous"},
        ),
        "score_details": closed(
            {"score": NUMBER}, details=DETAILS,
            uncertainty=closed(
                {}, standard_error=closed({"value": NUMBER}), num_samples={"type": "integer"},
                confidence_interval=closed({"lower": NUMBER, "upper": NUMBER}, confidence_level=NUMBER),
            ),
        ),
    },
    evaluation_result_id=TEXT, evaluation_timestamp=TEXT,
    generation_config=closed(
        {}, generation_args=closed({}, max_tokens={"type": "integer"}), additional_details=DETAILS
    ),
)  # fmt: skip
SCHEMA = closed(
    {
        "schema_version": {"const": "0.3.0"}, "evaluation_id": TEXT, "retrieved_timestamp": TEXT,
        "source_metadata": closed(
            {"source_type": {"enum": ["documentation", "evaluation_run"]}, "source_organization_name": TEXT,
             "evaluator_relationship": {"enum": ["first_party", "third_party", "collaborative", "other"]}},
            source_name=TEXT, additional_details=DETAILS,
        ),
        "model_info": closed(
            {"name": TEXT, "id": TEXT,
             "additional_details": {**DETAILS, "required": ["deployment_type", "model_availability"]}}
        ),
        "eval_library": closed({"name": TEXT, "version": TEXT}),
        "evaluation_results": {"type": "array", "items": RESULT},
    },
    evaluation_timestamp=TEXT,
)  # fmt: skip


def exported(*units, now=1_800_000_000.4):
    found, absent = records(table(*units), "My Lab", now)
    return {path: json.loads(dump(record)) for path, record in found.items()}, absent


def test_a_record_has_the_fields_of_the_schema_and_no_others():
    found, absent = exported(unit(), unit("greedy"), unit(generator="org/model", judge="gpt2"))
    for record in found.values():
        jsonschema.validate(record, SCHEMA)
    assert len(found) == 3 and not absent
    paths = [path.split("/") for path in found]
    assert {tuple(p[:4]) for p in paths} == {("data", "words", "unknown", "SmolLM2"), ("data", "words", "org", "model")}
    assert all(p[4][14] == "4" and len(p[4]) == 41 for p in paths)  # a version 4 UUID
    assert len({record["evaluation_id"] for record in found.values()}) == 3  # unique, though two are of one model
    assert list(found) == list(exported(unit(), unit("greedy"), unit(generator="org/model", judge="gpt2"))[0])


def test_numbers_keep_their_uncertainty():
    (record,) = exported(unit("greedy"))[0].values()
    first, last = record["evaluation_results"]
    assert first["evaluation_result_id"] == "words/divergence.kl_target"
    assert first["metric_config"]["lower_is_better"] is True
    assert first["score_details"] == {
        "score": 1 / 3, "details": {"ci_over": "prompts_given"},
        "uncertainty": {"standard_error": {"value": 0.1}, "num_samples": 30,
                        "confidence_interval": {"lower": 0.1, "upper": 0.7, "confidence_level": 0.95}},
    }  # fmt: skip
    assert last["metric_config"]["metric_name"] == "perplexity" and last["metric_config"]["max_score"] == "Infinity"
    assert last["generation_config"]["generation_args"] == {"max_tokens": 40}
    assert record["model_info"]["name"] == "SmolLM2 + greedy" and record["retrieved_timestamp"] == "1800000000"


def test_what_a_score_cannot_say_is_named_with_its_reason():
    (record,) = exported(unit())[0].values()
    assert record["source_metadata"]["additional_details"]["not_exported"] == (
        "divergence.kl_reverse: inf leaves p's support; divergence.tv: — too few; "
        "distinct.distinct_2: 0.9, no direction is better"
    )


def test_limits_that_are_not_two_finite_numbers_are_told_in_words():
    rows = [{**unit()[0], "ci_high": float("inf")}, {**unit()[3], "ci_low": nan, "stderr": None}]
    (record,) = exported(rows)[0].values()
    jsonschema.validate(record, SCHEMA)
    open_above, one_side = (result["score_details"] for result in record["evaluation_results"])
    assert open_above["details"]["ci_high"] == "inf" and "confidence_interval" not in open_above["uncertainty"]
    assert one_side["details"]["ci_high"] == "15.0" and "uncertainty" not in one_side


def test_draws_of_p_are_no_model_and_a_unit_without_numbers_is_told():
    found, absent = exported(unit(generator="draws of p"), unit("greedy")[1:3])
    assert found == {} and absent == ["words: SmolLM2 + greedy: has no number with a direction: no record"]


@pytest.mark.parametrize("spoil", [{"score": 1}, {"evaluation_results": [{"evaluation_name": "x"}]}])
def test_the_facts_catch_a_wrong_record(spoil):
    (record,) = exported(unit())[0].values()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, **spoil}, SCHEMA)
