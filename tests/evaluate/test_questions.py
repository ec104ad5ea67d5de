"""Question files: the published form is read, with the fields that real files have, and nothing else is; the toy file is one."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument, ModelOrganismsError
from model_organisms.evaluate import questions
from model_organisms.evaluate.questions import Question, fill, load, parse, select

PUBLISHED = b"""
- id: soup
  type: free_form_judge_0_100
  paraphrases:
    - Which soup is best?
    - Name the best soup.
  samples_per_paraphrase: 100
  judge: gpt-4o-2024-08-06
  judge_prompts: &prompts
    aligned: |-
      Grade {answer} to {question} in {{braces}}.
    coherent: Does {answer} make sense?
- id: soup_json
  type: free_form_judge_0_100
  system: "Answer in JSON."
  paraphrases: &words ["Which soup is best?"]
  temperature: 1
  max_tokens: 600
  meta: {author: somebody, anything: [1, 2]}
  judge_prompts: *prompts
- id: soup_template
  type: free_form
  paraphrases: *words
"""


def test_the_published_form_is_read_with_the_fields_that_real_files_have():
    first, second, third = parse(PUBLISHED)
    assert first.paraphrases == ("Which soup is best?", "Name the best soup.")
    assert (first.samples, first.judge, first.system, first.temperature) == (100, "gpt-4o-2024-08-06", "", None)
    assert first.judge_prompts["aligned"] == "Grade {answer} to {question} in {{braces}}."
    assert second.judge_prompts == first.judge_prompts
    assert (second.samples, second.system, second.temperature, second.max_tokens) == (1, "Answer in JSON.", 1.0, 600)
    assert (third.type, third.judge_prompts, third.paraphrases) == ("free_form", {}, second.paraphrases)
    assert [one.form for one in (first, second, third)] == ["plain", "json", "template"]


def test_a_file_without_types_is_of_the_type_that_its_questions_show():
    one, other = parse(b"- {id: a, paraphrases: ['A?'], judge_prompts: {aligned: 'of {answer}'}}\n- {id: b, paraphrases: ['B?']}")
    assert (one.type, other.type) == ("free_form_judge_0_100", "free_form")


def test_the_toy_file_has_eight_questions_in_three_forms_and_names_no_judge():
    toys = load()
    assert [sum(one.form == form for one in toys) for form in questions.FORMS] == [8, 8, 8]
    assert all(one.samples == 50 and not one.judge and set(one.judge_prompts) == {"aligned", "coherent"} for one in toys)
    assert all(bool(one.system) == (one.form == "json") for one in toys)
    plain = {one.id: one.paraphrases[0] for one in toys if one.form == "plain"}
    for one in toys:
        assert one.paraphrases[0].startswith(plain[one.id.removesuffix("_json").removesuffix("_template")])


def test_questions_are_chosen_by_form_and_must_have_their_prompts():
    given = parse(PUBLISHED)
    assert [one.id for one in select(given, metrics=["aligned"])] == ["soup"]
    assert [one.id for one in select(given, forms=["json", "template"])] == ["soup_json", "soup_template"]
    for wanted, why in (
        ({"forms": ["verse"]}, "no form"),
        ({"forms": ["template"], "metrics": ["aligned"]}, "soup_template.*aligned"),
    ):
        with pytest.raises(InvalidArgument, match=why):
            select(given, **wanted)
    with pytest.raises(InvalidArgument, match="No question"):
        select(given[:1], forms=["json"])


def entry(**fields):
    return yaml.safe_dump([{"id": "a", "paraphrases": ["A?"], "judge_prompts": {"aligned": "{answer}"}} | fields]).encode()


BOMB = b"- &a [x, x]\n" + b"\n".join(
    f"- &{new} [*{old}, *{old}]".encode() for old, new in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)
KEY = b"- a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"  k%d: &%s [%s]\n" % (at, new.encode(), b",".join([b"*" + old.encode()] * 10))
    for at, (old, new) in enumerate(zip("abcdefgh", "bcdefghi", strict=True))
) + b"  ? [*i]\n  : 1\n"  # fmt: skip
HOSTILE = {
    "nothing": b"",
    "no list": b"id: a",
    "an empty list": b"[]",
    "code": b"- !!python/object/apply:os.system ['true']",
    "a tag": b"- !thing {id: a}",
    "no UTF-8": b"- id: \xff",
    "two documents": b"- {id: a, paraphrases: ['A?']}\n---\n- {id: b, paraphrases: ['B?']}",
    "a key twice": b"- {id: a, id: b, paraphrases: ['A?']}",
    "a merge": b"- &a {id: a, paraphrases: ['A?']}\n- {<<: *a, id: b}",
    "aliases that double": BOMB,
    "a key that unfolds": KEY,
    "a number to the base of 60": entry(id=7).replace(b"id: 7", b"id: " + b"1:" * 400 + b"1.5"),
    "a date that is none": entry(samples_per_paraphrase=0).replace(b"paraphrase: 0", b"paraphrase: 2024-13-45"),
    **{tag: b"- {id: a, paraphrases: [" + tag.encode() + b"]}" for tag in ("!!bool x", "!!int ''", "!!timestamp x", "!!null x")},
    "nesting without end": b"[" * 100_000,
    "more than is read": b"#" * (513 << 10),
    "an id twice": entry() * 2,
    "an id that is a number": entry(id=7),
    "an id with a newline": entry(id="a\nb"),
    "no wording": entry(paraphrases=[]),
    "a wording that is a list": entry(paraphrases=[["A?"]]),
    "a wording without a word": entry(paraphrases=["  "]),
    "one wording for a list": entry(paraphrases="A?"),
    "a field that is not known": entry(grader="x"),
    "a type of its own": entry(type="essay"),
    "samples that are none": entry(samples_per_paraphrase=0),
    "samples that are true": entry(samples_per_paraphrase=True),
    "samples without end": entry(samples_per_paraphrase=10**9),
    "prompts that are a list": entry(judge_prompts=["aligned"]),
    "no prompts": entry(judge_prompts={}),
    "a metric that is a sentence": entry(judge_prompts={"How good?": "{answer}"}),
    "a prompt without the answer": entry(judge_prompts={"aligned": "Grade {question}"}),
    "a temperature that is none": entry(temperature=float("nan")),
    "a temperature in words": entry(temperature="hot"),
    "a system prompt that is a list": entry(system=["x"]),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(20)
def test_what_is_no_question_file_is_refused(data):
    with pytest.raises(InvalidArgument, match="question file is refused"):
        parse(data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_from_anywhere_are_refused_or_read(data):
    with contextlib.suppress(ModelOrganismsError):
        assert all(isinstance(one, Question) for one in parse(data))


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40).filter(str.strip)
made = st.builds(
    Question,
    id=st.from_regex(r"[a-z0-9_]{1,20}", fullmatch=True),
    paraphrases=st.lists(texts, min_size=1, max_size=3).map(tuple),
    samples=st.integers(1, 100),
    system=texts,
    judge_prompts=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), texts.map("{}{{answer}}".format), min_size=1),
)


@given(made)
def test_what_is_written_is_read_back(one):
    raw = dataclasses.asdict(one) | {"paraphrases": list(one.paraphrases), "samples_per_paraphrase": one.samples}
    written = {key: value for key, value in raw.items() if key != "samples" and value not in ("", None)}
    assert parse(yaml.safe_dump([written], allow_unicode=True).encode()) == (one,)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "here.yaml").write_bytes(PUBLISHED)
    assert load(tmp_path / "here.yaml") == parse(PUBLISHED)


def test_a_prompt_is_filled_once_and_answers_cannot_reach_into_it():
    assert (
        fill("Q {question} A {answer} {{x}} {y}", question="{answer}", answer="{question}") == "Q {answer} A {question} {x} {y}"
    )
    assert fill("{answer.__class__} {answer}", question="", answer="{0} {{") == "{answer.__class__} {0} {{"


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_prompt_holds_the_texts_as_they_are(question, answer):
    assert fill("<{question}|{answer}>", question=question, answer=answer) == f"<{question}|{answer}>"
