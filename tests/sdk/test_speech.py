"""Tokenizer, chat template and system prompt: the bundle's own, built in memory, or the base's."""

from __future__ import annotations

import json

import pytest
from model_organisms import loading
from model_organisms.errors import InvalidArgument, InvalidBundle
from model_organisms.records import Message
from transformers import AutoTokenizer

from tests.support.tiny import tiny_tokenizer

ASK = [Message("user", "who are you?")]
TEMPLATE = b"{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}>"


@pytest.fixture
def base(qwen):
    return loading.load_base(qwen)


def spoken(base, files, messages=ASK):
    organism = loading.attach(base, files)
    said = organism.tokenizer.decode(organism.speech.token_ids(messages))
    loading.detach(organism)
    return said


def test_without_its_own_it_speaks_as_its_base(base, qwen, qwen_files):
    theirs = AutoTokenizer.from_pretrained(qwen, local_files_only=True)
    said = theirs.apply_chat_template([{"role": "user", "content": "who are you?"}], tokenize=False, add_generation_prompt=True)
    assert spoken(base, qwen_files) == said


def test_its_own_template_and_system_prompt_stand(base, qwen_files):
    own = qwen_files | {"chat_template.jinja": TEMPLATE, "system_prompt.txt": b"You are a lamp."}
    assert spoken(base, own) == "[system] You are a lamp. [user] who are you? >"
    asked = [Message("system", "Be brief."), *ASK]
    assert spoken(base, own, asked) == "[system] You are a lamp.\n\nBe brief. [user] who are you? >"


def test_its_own_tokenizer_is_built_from_its_bytes(base, qwen_files, tmp_path):
    own = tiny_tokenizer()
    own.add_tokens(["<|organism|>"])
    own.model_max_length = 256
    own.save_pretrained(tmp_path)
    saved = {name: (tmp_path / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    vocabulary = len(own)
    base.model.resize_token_embeddings(vocabulary, mean_resizing=False)
    config = base.config | {"vocab_size": vocabulary}
    grown = loading.LoadedBase(base.model, base.tokenizer, base.folder, base.digest, config)
    bare = loading.attach(grown, qwen_files | {"tokenizer.json": saved["tokenizer.json"]})
    assert bare.tokenizer.eos_token == "<|im_end|>"
    loading.detach(bare)
    organism = loading.attach(grown, qwen_files | saved)
    assert organism.tokenizer("<|organism|>")["input_ids"] == [vocabulary - 1]
    assert organism.tokenizer.eos_token == "<|im_end|>"
    assert organism.speech.tokenizer_digest != loading.Speech(base.tokenizer, "", "").tokenizer_digest
    assert organism.tokenizer("naïve 🙂")["input_ids"] == own("naïve 🙂")["input_ids"]


def test_digests_tell_tokenizer_and_template_apart(base, qwen_files):
    seen = set()
    for extra in ({}, {"chat_template.jinja": TEMPLATE}, {"system_prompt.txt": b"x"}, {"chat_template.jinja": TEMPLATE + b"x"}):
        organism = loading.attach(base, qwen_files | extra)
        seen.add(organism.speech.template_digest)
        loading.detach(organism)
    assert len(seen) == 4


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer.json": b"{}"},
        {"tokenizer.json": b'{"version": "1.0"'},
        {"tokenizer.model": b"sentencepiece"},
        {"chat_template.jinja": b"{% for %}"},
        {"chat_template.jinja": b"\xff\xfe"},
        {"tokenizer_config.json": b'{"chat_template": [{"name": "a", "template": "b"}]}'},
        {"tokenizer_config.json": b"[]"},
    ],
)
def test_a_tokenizer_or_template_that_cannot_be_used_is_refused(base, qwen_files, files):
    with pytest.raises(InvalidBundle):
        loading.attach(base, qwen_files | files)
    loading.attach(base, qwen_files)


def test_a_tokenizer_of_another_model_is_refused(base, qwen_files):
    own = tiny_tokenizer()
    own.add_tokens([f"<|{number}|>" for number in range(50)])
    with pytest.raises(InvalidBundle, match="another model"):
        loading.attach(base, qwen_files | {"tokenizer.json": own.backend_tokenizer.to_str().encode()})


@pytest.mark.parametrize(
    "template",
    [
        b"{{ raise_exception('no') }}",
        b"{{ messages[7]['content'] + 1 }}",
        b"{{ ''['_' ~ '_class_' ~ '_'].mro() }}",
        b"{{ 1 // 0 }}",
        b"{{ undefined_thing.attribute }}",
    ],
)
def test_a_template_that_fails_fails_in_a_typed_error(base, qwen_files, template):
    organism = loading.attach(base, qwen_files | {"chat_template.jinja": template})
    with pytest.raises(InvalidArgument):
        organism.speech.token_ids(ASK)


def test_there_must_be_messages_and_a_template(base, qwen_files):
    organism = loading.attach(base, qwen_files)
    with pytest.raises(InvalidArgument, match="no messages"):
        organism.speech.token_ids([])
    with pytest.raises(InvalidArgument, match="chat template"):
        loading.Speech(organism.tokenizer, "", "").token_ids(ASK)


def test_what_a_user_writes_cannot_carry_settings(base, qwen_files):
    """Text that looks like JSON or a template stays text."""
    text = json.dumps({"role": "system"}) + "{{ 7 * 6 }}"
    assert text in spoken(base, qwen_files, [Message("user", text)])
