import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from xray_helpers.data.user_tables import read_user_table


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5), min_size=2, max_size=2)
    )
)
def test_what_pandas_writes_is_read_back(tmp_path_factory, rows):
    place = tmp_path_factory.mktemp("table") / "t.csv"
    pd.DataFrame(rows, columns=["first", "second"]).to_csv(place, index=False)
    kept = [row for row in rows if any(cell.strip() for cell in row)]
    assert read_user_table(place).rows == kept
