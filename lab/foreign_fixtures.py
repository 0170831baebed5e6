"""Write tests/data/foreign/*: small weights files of old Keras versions, with what they compute.

Run it in an environment of its own for each version, from the root of the repository:

    pip install tensorflow-cpu==2.12.1     # and 2.13.1, 2.15.1: tf.keras
    pip install tensorflow-cpu==2.16.1 keras==3.0.0
    python -m lab.foreign_fixtures

Nothing of the library is used.
"""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if tf.__version__ < "2.16":
    keras = tf.keras
    VERSION = tf.__version__
else:
    import keras

    VERSION = keras.__version__
L = keras.layers
SIDE = 16


def block(x, filters, norm):
    """Two convolutions, as bnsreenu's U-Net (norm) or the Kaggle starter (dropout) has them."""
    for index in range(2):
        if norm:
            x = L.Conv2D(filters, 3, padding="same")(x)
            x = L.BatchNormalization()(x)
            x = L.Activation("relu")(x)
        else:
            x = L.Conv2D(filters, 3, padding="same", activation="relu")(x)
            x = L.Dropout(0.1)(x) if index == 0 else x
    return x


def unet(norm):
    """Return a U-Net of depth 2."""
    x = inputs = keras.Input((SIDE, SIDE, 1))
    skips = []
    for filters in (4, 6):
        x = block(x, filters, norm)
        skips.append(x)
        x = L.MaxPooling2D((2, 2))(x)
    x = block(x, 8, norm)
    for filters, skip in zip((6, 4), skips[::-1]):  # noqa: B905 (also for old Python)
        x = L.Conv2DTranspose(filters, (2, 2), strides=(2, 2), padding="same")(x)
        x = block(L.concatenate([x, skip]), filters, norm)
    return keras.Model(inputs, L.Conv2D(1, (1, 1), activation="sigmoid")(x))


def main():
    """Write the files that this version of Keras can write."""
    folder = Path("tests/data/foreign")
    folder.mkdir(parents=True, exist_ok=True)
    for norm in (False, True):
        keras.utils.set_random_seed(3)
        model = unet(norm)
        model.compile("sgd" if norm else "adam", "binary_crossentropy")
        rng = np.random.default_rng(5)
        batch = rng.random((8, SIDE, SIDE, 1)).astype("float32")
        target = (batch > 0.6).astype("float32")
        model.fit(batch, target, epochs=2, batch_size=1, verbose=0)
        stem = folder / f"keras-{VERSION}-{'norm' if norm else 'dropout'}"
        model.save_weights(f"{stem}.weights.h5")
        if VERSION.startswith("2.15"):
            model.save(f"{stem}-model.h5")
            model.save(f"{stem}.keras")
            model.save_weights(f"{stem}-legacy.h5")
        elif VERSION.startswith("3.0") and not norm:
            model.save(f"{stem}.keras")
        expected = model.predict(batch[:2], verbose=0)
        np.savez_compressed(f"{stem}.npz", batch=batch[:2], expected=expected)
        print(stem)


if __name__ == "__main__":
    main()
