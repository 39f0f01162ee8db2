"""Independent streams of random numbers, one for each use of the seed of a study."""

import zlib


def derive_seed(seed: int, *keys: str | int) -> int:
    """Return the seed of a stream of its own, below 2**32, for each use of a study's seed.

    Parameters
    ----------
    seed : int
        Of the study, not below 0.
    *keys : str or int
        What is drawn, such as ``"folds"``, and which repeat of it. Streams of other keys or other seeds are
        independent (`numpy.random.SeedSequence`), which neighbouring sums of seed and number are not.
    """
    import numpy as np

    words = [zlib.crc32(str(key).encode()) for key in keys]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])
