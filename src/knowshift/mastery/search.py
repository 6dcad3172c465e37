"""Which facts to look at next, until enough of a level are found: exactly those that choosing from all would take.

Within a topic facts are looked at in the order in which ``select`` ranks them, and topics take turns, so the first
facts found are the ones ``select`` would choose had everything been scored. A topic is asked further only while it
owes facts; what a topic cannot give, because all of it was looked at, the others owe. Knows ids and yes or no; not
levels, models or files.
"""

from collections.abc import Mapping, Sequence

from knowshift.mastery.share import Looked


class Search:
    """The state of a search over topics.

    Args:
        order: each topic's facts by id, as ranked; topics in the order of their turns.
        wanted: how many to find, at least 1.
    """

    def __init__(self, order: Mapping[str, Sequence[str]], wanted: int) -> None:
        self.wanted = wanted
        self._topics = [_Topic(list(ids)) for ids in order.values()]

    @property
    def looked(self) -> int:
        """Facts looked at so far."""
        return sum(topic.looked for topic in self._topics)

    @property
    def facts(self) -> int:
        """Facts there are."""
        return sum(len(topic.ids) for topic in self._topics)

    @property
    def found(self) -> int:
        """Facts found that count: not more of a topic than it owes."""
        return sum(min(topic.found, owed) for topic, owed in zip(self._topics, self._owed(), strict=True))

    def next(self) -> list[str]:
        """Facts to look at next; none when enough are found or nothing is left.

        A topic gives as many as it lacks over the share found in it so far, but at most as many as were looked at
        before (at first: as many as it lacks): few are looked at in vain, and the steps grow. What was told decides
        them alone, so a search repeated is the same search.
        """
        batch: list[tuple[int, int, str]] = []
        for turn, (topic, owed) in enumerate(zip(self._topics, self._owed(), strict=True)):
            lacking = owed - topic.found
            if lacking > 0:
                likely = -(-lacking * (topic.looked + 1) // (topic.found + 1))
                count = min(likely, max(lacking, topic.looked))
                batch += [(place, turn, topic.ids[place]) for place in topic.ahead(count)]
        return [fact for _, _, fact in sorted(batch)]

    def tell(self, verdicts: Mapping[str, bool]) -> None:
        """Whether each of the facts given out has the level; all of the last batch must be told."""
        for topic in self._topics:
            while topic.looked < len(topic.ids) and topic.ids[topic.looked] in verdicts:
                topic.verdicts.append(verdicts[topic.ids[topic.looked]])

    def seen(self) -> list[Looked]:
        """What an estimate of the level's share may use: each topic asked, up to the last fact that counts.

        A topic that gave what it owed counts to that fact even if all of it was looked at by then: to call it known
        only where the last fact came late would bend the estimate. Where everything was looked at, all is known.
        """
        seen = []
        all_looked = self.looked == self.facts
        for topic, owed in zip(self._topics, self._owed(), strict=True):
            if all_looked or (topic.whole and topic.found <= owed):
                seen.append(Looked(len(topic.ids), topic.looked, topic.found))
            elif owed and topic.found >= owed:
                last = [place for place, verdict in enumerate(topic.verdicts, 1) if verdict][owed - 1]
                seen.append(Looked(len(topic.ids), last, owed))
        return seen

    def _owed(self) -> list[int]:
        """What each topic must find: turns go round until ``wanted``, past topics known to hold no more."""
        owed = [0] * len(self._topics)
        left = self.wanted
        open_topics = list(range(len(self._topics)))
        while left and open_topics:
            round_ = max(1, left // len(open_topics))
            for index in list(open_topics):
                topic = self._topics[index]
                given = min(round_, left, topic.found - owed[index] if topic.whole else left)
                owed[index] += given
                left -= given
                if topic.whole and topic.found == owed[index]:
                    open_topics.remove(index)
        return owed


class _Topic:
    """The facts of one topic as ranked, and the verdicts on the first of them."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.verdicts: list[bool] = []

    @property
    def looked(self) -> int:
        return len(self.verdicts)

    @property
    def found(self) -> int:
        return sum(self.verdicts)

    @property
    def whole(self) -> bool:
        return self.looked == len(self.ids)

    def ahead(self, count: int) -> range:
        return range(self.looked, min(self.looked + count, len(self.ids)))
