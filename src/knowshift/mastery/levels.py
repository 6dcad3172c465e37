"""The five mastery levels of the paper (section 2)."""

LEVELS = (0, 1, 2, 3, 4)
NAMES = ("never", "up to a quarter", "up to a half", "up to three quarters", "more than three quarters")


def level(hits: int, trials: int) -> int:
    """0 for no hit; 1, 2, 3, 4 for a share of hits in (0, 1/4], (1/4, 1/2], (1/2, 3/4], (3/4, 1].

    Whole numbers all the way, so a share of exactly one half is level 2 whatever the number of trials.
    """
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"{hits} hits in {trials} trials")
    return -(-4 * hits // trials)
