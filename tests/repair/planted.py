"""Scores of candidates with planted chances, as measurements would give them."""

import numpy as np

from knowshift.repair.scores import Scores


def scores(generator, knowledge, task, facts=80, items=80):
    """Candidates by name, each with its mean chance to answer a fact and to get an item right.

    A fact is as hard for all: a model answers it if its own chance and a little noise reach the fact's difficulty.
    """
    names = tuple(knowledge)
    columns = []
    for chance, count in ((knowledge, facts), (task, items)):
        difficulty = generator.random((count, 1))
        own = np.array([chance[name] for name in names])
        margin = own - difficulty + generator.normal(0, 0.05, (count, len(names)))
        columns.append(((margin > 0).astype(float), margin))
    (known, known_log_prob), (done, done_log_prob) = columns
    return Scores(names, known, done, known_log_prob - 1, done_log_prob - 1, binary=True)
