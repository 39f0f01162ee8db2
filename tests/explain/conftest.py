import pytest


@pytest.fixture
def model():
    """A convolutional network with random weights for pictures of 16 x 16 pixels."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 1), name="grey_pixels")
    x = keras.layers.Conv2D(3, 3, activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="last_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    x = keras.layers.Dense(5, activation="relu", name="dense")(x)
    return keras.Model(
        inputs, keras.layers.Dense(1, activation="sigmoid", name="p_fractured")(x), name="small"
    )
