"""Independent streams of random numbers, one for each use of a study's seed."""

import zlib


def derive_seed(seed: int, *keys: str | int) -> int:
    """Return the seed (below 2**32) of an independent stream for one use of a study's seed.

    Parameters
    ----------
    seed : int
        Seed of the study, not negative.
    *keys : str or int
        What is drawn, such as ``"folds"``, and which repeat of it. Streams of other keys or seeds are
        independent (`numpy.random.SeedSequence`), unlike those of neighbouring seeds.
    """
    import numpy as np

    numbers = [zlib.crc32(str(key).encode()) for key in keys]
    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1)[0])
