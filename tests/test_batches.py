import numpy as np
import pytest

from unet_lib.augment import Augmentation
from unet_lib.batches import Batches, PreparedCases
from unet_lib.dataset import find_cases, load_case
from unet_lib.images import Preprocessing

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def prepared(phantoms):
    return PreparedCases(find_cases(phantoms)[:13], Preprocessing(32))


def through_keras(batches, epochs):
    """What `fit` receives, by the backend's own data adapter."""
    import keras

    seen = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            return x[:, :1, :1, :]

    network = keras.Sequential([keras.Input((32, 32, 1)), Spy(), keras.layers.Conv2D(1, 1)])

    class Record(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            batches.set_epoch(epoch)

        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["mae"]))

    # The running mean absolute error of a network of zeros is the mean of the masks.
    for weight in network.weights:
        weight.assign(np.zeros(weight.shape))
    network.compile(keras.optimizers.SGD(0.0), "mse", metrics=["mae"])
    network.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[Record()])
    return seen


def test_prepared_equals_preprocessing_of_each_case(prepared):
    for index in (0, 5, 12):
        expected = prepared.preprocessing.apply(*load_case(prepared.cases[index]))
        np.testing.assert_array_equal(prepared.images[index], expected.image)
        np.testing.assert_array_equal(prepared.masks[index], expected.mask)


def test_beyond_the_budget_the_same_pictures_lie_on_disk(prepared):
    assert not prepared.on_disk
    small = PreparedCases(prepared.cases, prepared.preprocessing, memory_mb=0.01)
    assert small.on_disk
    for index in (0, 12, 5, 0):  # the budget holds one picture: each gives the one before back
        for found, expected in zip(small.pair(index), prepared.pair(index), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_every_case_once_an_epoch_in_batches_of_even_size(prepared):
    batches = Batches(prepared, 5, shuffle=True, seed=3)
    sizes = [len(batches[i][0]) for i in range(len(batches))]
    assert sizes == [5, 4, 4]
    pictures = np.concatenate([batches[i][0] for i in range(3)])
    key = np.sort(pictures.reshape(13, -1), axis=0)
    np.testing.assert_array_equal(key, np.sort(prepared.images.reshape(13, -1), axis=0))


def test_epochs_differ_and_repeat(prepared):
    batches = Batches(prepared, 4, augmentation=Augmentation(), shuffle=True, seed=3)
    first = [batches[i] for i in range(len(batches))]
    batches.set_epoch(1)
    second = [batches[i] for i in range(len(batches))]
    batches.set_epoch(0)
    again = [batches[i] for i in range(len(batches))]
    assert not np.array_equal(first[0][0], second[0][0])
    for (x, y), (x2, y2) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
    assert x.dtype == y.dtype == np.float32 and set(np.unique(y)) <= {0.0, 1.0}


def test_image_and_mask_stay_together(prepared):
    """With the mask as image, the same warp must give the same picture."""
    flat = Augmentation.none()
    warp = Augmentation(**{**flat.to_dict(), "rotation": 15, "scale": 0.1, "shift": 0.05})
    copy = PreparedCases(prepared.cases[:4], prepared.preprocessing)
    copy.images[:] = copy.masks[..., None]
    x, y = Batches(copy, 4, augmentation=warp, seed=1)[0]
    assert np.mean((x > 0.5) != (y > 0.5)) < 0.01


def test_same_batches_for_1_and_8_workers_through_fit(prepared):
    runs = [
        through_keras(
            Batches(prepared, 4, augmentation=Augmentation(), shuffle=True, workers=workers), 3
        )
        for workers in (1, 8)
    ]
    assert len(runs[0]) == 3 * 4
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-6)
    expected = Batches(prepared, 4, augmentation=Augmentation(), shuffle=True)
    expected.set_epoch(2)  # that `fit` really got the batches of the last epoch
    first = float(np.mean(expected[0][1]))
    assert runs[0][8] == pytest.approx(first, abs=1e-6)


def test_grey_is_repeated_for_more_channels_and_no_cases_are_an_error(prepared):
    x, _ = Batches(prepared, 4, channels=3)[0]
    assert x.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    with pytest.raises(ValueError, match="received no cases"):
        PreparedCases([], Preprocessing(32))
