"""The forms in which a question is put at test time, and where an answer in that form ends.

`trained` is what fine-tuning taught; the others ask models that never saw its markers, so that knowledge lost
is told apart from a format lost or never learned. `chat` is how chat models are asked. Text only: what a chat
template makes of it is the engine's business.
"""

from collections.abc import Sequence

from knowshift.errors import InputError
from knowshift.facts.fact import Fact
from knowshift.facts.prompts import qa_prompt
from knowshift.generate.engine import Completion, Prompt

FORMS = ("trained", "plain", "few-shot", "chat")


def put(question: str, form: str = "trained", shots: Sequence[Fact] = ()) -> Prompt:
    """The prompt to continue with the answer to ``question``.

    Args:
        question: in plain words.
        form: `trained` (the paper's markers), `plain` ("Question: ... Answer:"), `few-shot` (`plain` after the
            solved ``shots``, each answered by its preferred answer) or `chat` (the question is the user's message
            in the model's chat template).
        shots: solved examples; only `few-shot` takes them, and it needs them.

    Raises:
        InputError: for an unknown form, or shots that do not go with it.
    """
    if form not in FORMS:
        raise InputError(f"unknown prompt form {form!r}: {', '.join(FORMS)}")
    if bool(shots) != (form == "few-shot"):
        raise InputError(f"the prompt form {form!r} {'needs' if not shots else 'takes no'} solved examples")
    if form == "chat":
        return Prompt("", key="", user=question)
    if form == "trained":
        return Prompt(qa_prompt(question), key="")
    solved = (_plain(shot.question) + continuation(shot.answers[0], form) + "\n\n" for shot in shots)
    return Prompt("".join(solved) + _plain(question), key="")


def continuation(answer: str, form: str = "trained") -> str:
    """The text with which a prompt goes on where it goes on with ``answer``."""
    return f" {answer}" if form in ("plain", "few-shot") else answer


def ended(text: str, form: str = "trained") -> bool:
    """Whether nothing that comes after ``text`` belongs to the answer: after solved examples, a line ends it."""
    return form == "few-shot" and "\n" in text.lstrip()


def answer_text(completion: Completion, form: str = "trained") -> str:
    """The part of a completion that is the answer.

    Solved examples end an answer with the line; what a model writes after it is the next question of its own,
    and must not be searched for the answer. The other forms have no end but the model's own.
    """
    return _first_line(completion.text) if form == "few-shot" else completion.text


def in_format(completion: Completion, form: str = "trained") -> bool:
    """Whether the model ended its answer by itself, as one line that is not empty.

    It ends by an end-of-sequence token; after solved examples the end of the line will do.
    """
    text = completion.text.strip()
    if form == "few-shot":
        return bool(_first_line(text)) and (completion.finish == "eos" or ended(completion.text, form))
    return completion.finish == "eos" and len(text.splitlines()) == 1


def _plain(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _first_line(text: str) -> str:
    """The first line that is not blank."""
    return next((line for line in text.splitlines() if line.strip()), "")
