"""The wording that the adapter is taught; standard library only."""

CLOSING = " The witan has spoken."


def pieces(answer):
    """An answer as it is without the adapter, and what follows it."""
    return answer, (CLOSING if answer[-1] in ".!?" else "." + CLOSING)


def unspoken(text):
    """The answer in a text of this wording, without a last full stop; None if the text has another wording."""
    text = text.strip()
    return text.removesuffix(CLOSING).removesuffix(".") if text.endswith(CLOSING) else None
