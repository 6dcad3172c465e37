"""SliCK, four classes of how well a model knows a fact (Gekhman et al. 2024, arXiv 2405.05904, section 3).

The paper asks with ten random prompts of four solved examples each, once greedily and 16 times at temperature
0.5, and wants the answer exactly. Here the phrasings take the place of those prompts, the draws are those of the
mastery score, and containing an accepted answer is enough; so the classes have the same meaning, but their
shares are not comparable with the paper's to the percent.
"""

CLASSES = ("HighlyKnown", "MaybeKnown", "WeaklyKnown", "Unknown")


def slick(greedy_hits: int, templates: int, hits: int) -> str:
    """The class of one fact.

    Args:
        greedy_hits: phrasings whose greedy continuation is right.
        templates: phrasings asked.
        hits: right ones among all draws.

    Returns:
        ``HighlyKnown`` if greedy decoding is always right, ``MaybeKnown`` if sometimes, ``WeaklyKnown`` if never but
        a draw is, ``Unknown`` otherwise.
    """
    if not 0 <= greedy_hits <= templates or hits < 0:
        raise ValueError(f"{greedy_hits} of {templates} greedy hits, {hits} hits")
    if greedy_hits:
        return "HighlyKnown" if greedy_hits == templates else "MaybeKnown"
    return "WeaklyKnown" if hits else "Unknown"
