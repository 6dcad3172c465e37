"""The trained question form of the paper (section 3): markers around the question, the answer after them.

Special tokens (a beginning-of-sequence token) are the tokenizer's business and are not part of the text.
"""

QUESTION = "<|question|>"
ANSWER = "<|answer|>"


def qa_prompt(question: str) -> str:
    """The text the model is trained and tested to continue with the answer."""
    return f"{QUESTION}{question}{ANSWER}"
