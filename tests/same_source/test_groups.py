import time

import numpy as np
import pandas as pd

from xray_helpers.same_source.groups import count_groups, find_label_conflicts, iterate_groups


def test_the_largest_groups_and_conflicts_of_many_files_without_a_loop_over_all():
    pair = np.arange(60_000) // 2
    pair[:5] = 0
    table = pd.DataFrame({"path": [f"{number:06d}.png" for number in range(60_000)], "label": "Fractured"})
    table["source_group"] = [f"{number:05d}" for number in pair]
    table.loc[[1, 59_999], "label"] = "Non-Fractured"
    started = time.process_time()
    largest = list(iterate_groups(table, most=3))
    assert [len(group) for group in largest] == [5, 2, 2]
    assert largest[0]["path"].tolist() == [f"{number:06d}.png" for number in range(5)]
    assert len(count_groups(table)) == len(set(pair)) - 1  # the fifth file left one alone
    assert find_label_conflicts(table)["source_group"].tolist() == ["00000", "29999"]
    assert time.process_time() - started < 2  # a look at each group takes more
