"""Inspect's words and ours: what is translated, what is refused and by which name, and that receipts survive a log."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
)
from inspect_ai.tool import ToolCall, ToolInfo
from model_organisms import errors
from model_organisms.errors import ConfigurationInvalid, InvalidArgument
from model_organisms.evaluate import asking
from model_organisms.evaluate.provider import SessionAPI, read_budget
from model_organisms.formats.sampled import receipt_digest
from model_organisms.records import Budget, Message, SampleReceipt, SamplingParameters, Steer, TokenScore

HELLO = [ChatMessageUser(content="Hello.")]


def test_a_conversation_and_its_settings_are_translated():
    turns = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content=[ContentText(text="One."), ContentText(text="Two.")]),
        ChatMessageAssistant(content="Three."),
    ]
    config = GenerateConfig(max_tokens=7, temperature=0.5, top_p=0.9, top_k=3, stop_seqs=["."], seed=5, max_retries=2, timeout=9)
    asked = asking.asked(turns, [], config, scale=0.5)
    assert asked.messages == (Message("system", "Be brief."), Message("user", "One.\nTwo."), Message("assistant", "Three."))
    assert asked.parameters == SamplingParameters(7, 0.5, 0.9, 3, (".",), 5, scale=0.5)
    assert asked.top is None
    plain = asking.asked(HELLO, [], GenerateConfig(num_choices=1, frequency_penalty=0.0))
    assert plain.parameters == SamplingParameters(asking.MAX_TOKENS)
    assert asking.asked(HELLO, [], GenerateConfig(logprobs=True)).top == 0
    assert asking.asked(HELLO, [], GenerateConfig(logprobs=True, top_logprobs=4)).top == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1.0),
        ("logit_bias", {1: -100.0}),
        ("num_choices", 2),
        ("best_of", 3),
        ("prompt_logprobs", 1),
        ("reasoning_effort", "high"),
        ("reasoning_tokens", 100),
        ("extra_body", {"min_p": 0.1}),
        ("batch", True),
        ("modalities", ["image"]),
    ],
)
def test_a_setting_that_would_be_dropped_is_refused_by_its_name(name, value):
    with pytest.raises(InvalidArgument, match=f"'{name}'") as refused:
        asking.asked(HELLO, [], GenerateConfig(**{name: value}))
    assert refused.value.details["field"] == name


def test_tools_and_pictures_are_refused():
    call = ToolCall(id="1", function="look", arguments={})
    conversations = [
        [ChatMessageTool(content="Here.", tool_call_id="1")],
        [ChatMessageAssistant(content="", tool_calls=[call])],
    ]
    for turns in conversations:
        with pytest.raises(InvalidArgument, match="tool"):
            asking.asked(turns, [], GenerateConfig())
    with pytest.raises(InvalidArgument, match="'look'"):
        asking.asked(HELLO, [ToolInfo(name="look", description="Looks.")], GenerateConfig())
    with pytest.raises(InvalidArgument, match="'image'"):
        asking.asked([ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AAAA")])], [], GenerateConfig())


@pytest.mark.parametrize(
    ("ours", "theirs"), [("stop", "stop"), ("length", "max_tokens"), ("bytes", "unknown"), ("deadline", "unknown")]
)
def test_an_answer_is_translated(ours, theirs):
    told = asking.output("organisms/a", "Hi.", ours, tokens=3, prompt_tokens=4, metadata={"receipt": {}})
    assert (told.completion, told.stop_reason, told.metadata) == ("Hi.", theirs, {"receipt": {}})
    assert (told.usage.input_tokens, told.usage.output_tokens, told.usage.total_tokens) == (4, 3, 7)
    assert told.choices[0].logprobs is None


def test_the_drawn_token_has_its_score_or_the_one_that_says_that_it_was_not_told():
    best = (TokenScore(5, " yes", -0.1), TokenScore(6, " no", -2.5))
    told = asking.logprob(" no", best, top=1)
    assert (told.token, told.logprob) == (" no", -2.5)
    assert [(each.token, each.logprob) for each in told.top_logprobs] == [(" yes", -0.1)]
    assert asking.logprob(" perhaps", best, top=2).logprob == asking.UNLIKELY
    assert asking.logprob(" perhaps", best, top=0, drawn=-4.0).logprob == -4.0
    assert asking.logprob(" no", best, top=0).top_logprobs is None


_HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
_PARAMETERS = st.builds(
    SamplingParameters,
    max_tokens=st.integers(1, 8192),
    temperature=st.floats(0, 10),
    stop=st.lists(st.text(max_size=4), max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 2**63 - 1),
    steer=st.lists(st.builds(Steer, st.text(max_size=9), st.integers(0, 9), st.floats(-5, 5), st.booleans()), max_size=2).map(
        tuple
    ),
    scale=st.none() | st.floats(0, 2),
)
_WORD = st.text(max_size=9)
_RECEIPTS = st.builds(
    SampleReceipt,
    *[_WORD, _WORD, _HEX, _HEX, _HEX, _HEX, st.lists(_HEX, max_size=2).map(tuple), st.integers(0, 300)],
    *[_PARAMETERS, _WORD, _WORD, st.integers(0, 2**40), st.integers(0, 8192), _HEX],
)


@given(_RECEIPTS)
def test_a_receipt_comes_back_from_a_log_as_it_was(receipt):
    back = asking.parse_receipt(json.loads(json.dumps(asking.print_receipt(receipt))))
    assert back == receipt
    assert receipt_digest(back) == receipt_digest(receipt)


@pytest.mark.parametrize("said", [{}, {"parameters": None}, {"parameters": {"seed": "x"}}, {"parameters": {}, "more": 1}])
def test_what_is_no_receipt_is_refused(said):
    with pytest.raises(InvalidArgument, match="not a receipt"):
        asking.parse_receipt(said)


def test_a_budget_is_read_from_a_mapping_or_from_text():
    assert read_budget(None) is None
    assert read_budget("tokens=20, output_bytes=400") == read_budget({"tokens": 20, "output_bytes": 400}) == Budget(20, 0, 400)
    assert read_budget(["tokens=20", "output_bytes=400"]) == Budget(20, 0, 400)
    for odd in ("tokens", "tokens=many", "coins=3", {"coins": 3}, ["tokens"], 7):
        with pytest.raises(ConfigurationInvalid, match="no budget"):
            read_budget(odd)


def test_arguments_that_mean_nothing_are_refused_before_anybody_is_called():
    name = "organisms/tiny/versions/1"
    with pytest.raises(ConfigurationInvalid, match="'colour'"):
        SessionAPI(name, purpose="replication", colour="red")
    with pytest.raises(ConfigurationInvalid, match="'base_url'"):
        SessionAPI(name, "http://elsewhere", purpose="replication")
    for purpose in ("", "fun"):
        with pytest.raises(ConfigurationInvalid, match="purpose"):
            SessionAPI(name, purpose=purpose)
    with pytest.raises(ConfigurationInvalid, match="at_once"):
        SessionAPI(name, purpose="replication", at_once=0)
    with pytest.raises(InvalidArgument, match="name of a version"):
        SessionAPI("organisms/tiny", purpose="replication")


def test_only_what_left_nothing_behind_is_asked_again():
    model = SessionAPI("organisms/tiny/versions/1", purpose="replication")
    assert not model.should_retry(errors.RegistryUnreachable("Away."))  # there is no session yet: a wrong address stays wrong
    model._session = object()
    assert model.should_retry(errors.RegistryUnreachable("Away.")).kind == "transient"
    assert model.should_retry(errors.Unavailable("Too many.", limit="16")).kind == "rate_limit"
    for final in (
        errors.CellUnavailable,
        errors.BudgetExhausted,
        errors.GrantRevoked,
        errors.InvalidArgument,
        errors.ReceiptInvalid,
    ):
        assert not model.should_retry(final("No."))
    assert not model.should_retry(ValueError())
