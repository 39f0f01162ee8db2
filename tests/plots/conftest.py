import matplotlib.pyplot as plt
import pytest

from xray_helpers.plots.style import set_theme


@pytest.fixture(autouse=True)
def _theme():
    set_theme()
    yield
    plt.close("all")
