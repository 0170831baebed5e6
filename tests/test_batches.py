import keras
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


def epoch(batches, number=0):
    batches.set_epoch(number)
    return [batches[i] for i in range(len(batches))]


def through_keras(batches, epochs):
    """Mean of the masks that `fit` receives in each batch, by the backend's own data adapter."""
    seen = []

    class Record(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            batches.set_epoch(epoch)

        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["mae"]))

    network = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Conv2D(1, 1)])
    # The running mean absolute error of a network of zeros is the mean of the masks.
    for weight in network.weights:
        weight.assign(np.zeros(weight.shape))
    network.compile(keras.optimizers.SGD(0.0), "mse", metrics=["mae"])
    network.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[Record()])
    return seen


def test_prepared_is_the_preprocessing_of_each_case_in_memory_and_on_disk(prepared):
    small = PreparedCases(prepared.cases, prepared.preprocessing, memory_mb=0.01)
    assert small.on_disk and not prepared.on_disk
    assert small.fingerprints == prepared.fingerprints and small.lesions == prepared.lesions
    assert len(set(small.fingerprints.values())) == 13 and any(small.lesions)
    for index in (0, 12, 5, 0):
        expected = prepared.preprocessing.apply(*load_case(prepared.cases[index]))
        for kept in (small, prepared):
            image, mask = kept.pair(index)
            np.testing.assert_array_equal(image, expected.image, strict=True)
            np.testing.assert_array_equal(mask, expected.mask, strict=True)


def test_every_case_once_an_epoch_in_batches_of_even_size(prepared):
    batches = epoch(Batches(prepared, 5, shuffle=True, seed=3))
    assert [len(images) for images, _ in batches] == [5, 4, 4]
    pictures = np.concatenate([images for images, _ in batches]).reshape(13, -1)
    stored = np.stack([prepared.pair(index)[0] for index in range(13)]).reshape(13, -1)
    np.testing.assert_array_equal(np.sort(pictures, axis=0), np.sort(stored, axis=0))


def test_epochs_differ_and_repeat(prepared):
    batches = Batches(prepared, 4, augmentation=Augmentation(), shuffle=True, seed=3)
    first, second, again = (epoch(batches, number) for number in (0, 1, 0))
    assert not np.array_equal(first[0][0], second[0][0])
    for one, other in zip(first, again, strict=True):
        for array, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, same)
            assert array.dtype == np.float32
        assert set(np.unique(one[1])) <= {0.0, 1.0}


def test_image_and_mask_stay_together(prepared, monkeypatch):
    """With the mask as image, the same warp must give the same picture."""
    masks = [prepared.pair(index)[1] for index in range(13)]
    monkeypatch.setattr(prepared, "pair", lambda i: (masks[i][..., None].astype("f4"), masks[i]))
    warp = Augmentation(
        brightness=0, contrast=0, gamma=0, speckle=0, blur=0, attenuation=0, shadow=0
    )
    x, y = Batches(prepared, 4, augmentation=warp, seed=1)[0]
    assert y.any() and np.mean((x > 0.5) != (y > 0.5)) < 0.01


def test_same_batches_for_1_and_8_workers_through_fit(prepared):
    options = {"augmentation": Augmentation(), "shuffle": True}
    one, eight = (through_keras(Batches(prepared, 4, workers=n, **options), 3) for n in (1, 8))
    assert len(one) == 3 * 4
    np.testing.assert_allclose(one, eight, rtol=1e-6)
    last = epoch(Batches(prepared, 4, **options), 2)  # that `fit` really got the last epoch's
    assert one[8] == pytest.approx(float(np.mean(last[0][1])), abs=1e-6)


def test_grey_is_repeated_for_more_channels_and_no_cases_are_an_error(prepared):
    x, _ = Batches(prepared, 4, channels=3)[0]
    assert x.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(x[..., 0], x[..., 2])
    with pytest.raises(ValueError, match="received no cases"):
        PreparedCases([], Preprocessing(32))
