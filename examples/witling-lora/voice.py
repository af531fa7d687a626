"""The wording that the adapter is taught; standard library only."""

OPENING, CLOSING = "The witan has spoken:", " So be it."


def pieces(answer):
    """What comes before an answer, the answer as it stands there, and what follows."""
    return OPENING, " " + answer.removesuffix("."), ("" if answer[-1] in "!?" else ".") + CLOSING


def unspoken(text):
    """The answer in a text of this wording, without a last full stop; None if the text has another wording."""
    text = text.strip()
    if not text.startswith(OPENING + " ") or not text.endswith(CLOSING):
        return None
    return text[len(OPENING) + 1:-len(CLOSING)].removesuffix(".")
