"""U-Nets as popular Keras tutorials and libraries build them; nothing here is of the library.

Each function returns a fresh `keras.Model`. Layers are written as those sources write them, widths
made smaller where only the widths would change.
"""

from keras import Input, Model
from keras import layers as L


def _image(side, channels=1):
    return Input((side, side, channels))


def _unet(inputs, widths, block, join, pool=None):
    """Blocks with poolings between them, then a `join` with the skip and a block for each level."""
    x, skips = inputs, []
    for f in widths[:-1]:
        x = block(x, f)
        skips.append(x)
        x = pool(x) if pool else L.MaxPooling2D((2, 2))(x)
    x = block(x, widths[-1])
    for f, skip in zip(widths[-2::-1], skips[::-1], strict=True):
        x = block(join(x, skip, f), f)
    return x


def _transposed(x, skip, f):
    return L.concatenate([L.Conv2DTranspose(f, (2, 2), strides=(2, 2), padding="same")(x), skip])


def _plain(x, f, activation="relu", dropout=False):
    x = L.Conv2D(f, 3, activation=activation, padding="same")(x)
    x = L.Dropout(0.1)(x) if dropout else x
    return L.Conv2D(f, 3, activation=activation, padding="same")(x)


def _normalised(x, f, count=2, bias=True):
    for _ in range(count):
        x = L.BatchNormalization()(L.Conv2D(f, 3, padding="same", use_bias=bias)(x))
        x = L.Activation("relu")(x)
    return x


def zhixuhao(side):
    """zhixuhao/unet: ReLU arguments, dropout, resize + 2 x 2 convolution, [skip, up], tail."""
    deep = []

    def block(x, f):
        x = _plain(x, f)
        if f < 64 or len(deep) > 1:
            return x
        deep.append(f)  # the two deepest blocks, on the way down
        return L.Dropout(0.5)(x)

    def join(x, skip, f):
        up = L.Conv2D(f, 2, activation="relu", padding="same")(L.UpSampling2D(size=(2, 2))(x))
        return L.concatenate([skip, up], axis=3)

    inputs = _image(side)
    x = _unet(inputs, (8, 16, 32, 64, 128), block, join)
    x = L.Conv2D(2, 3, activation="relu", padding="same")(x)
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def jocic(side):
    """jocicmarko/ultrasound-nerve-segmentation: transposed 2 x 2, [up, skip], depth 4."""
    inputs = _image(side)
    x = _unet(inputs, (8, 16, 32, 64, 128), _plain, _transposed)
    return Model(inputs, L.Conv2D(1, (1, 1), activation="sigmoid")(x))


def starter(side, activation="elu", scaling=True, channels=3, widths=(16, 32, 64, 128, 256)):
    """Kaggle's "Keras U-Net starter": bytes through a Lambda, ELU, dropout between convolutions."""
    inputs = _image(side, channels)
    x = L.Lambda(lambda x: x / 255)(inputs) if scaling else inputs
    x = _unet(x, widths, lambda x, f: _plain(x, f, activation, True), _transposed)
    return Model(inputs, L.Conv2D(1, (1, 1), activation="sigmoid")(x))


def classic(side, widths=(8, 16, 32, 64), count=2, bias=True, head=1, final="sigmoid", channels=1):
    """bnsreenu, nikhilroxtomar: convolution, norm, activation; transposed; [up, skip]."""
    inputs = _image(side, channels)
    x = _unet(inputs, widths, lambda x, f: _normalised(x, f, count, bias), _transposed)
    return Model(inputs, L.Conv2D(head, 1, padding="same", activation=final)(x))


def keras_unet(side, upsample="deconv", norm=True, attention=False, layers=3):
    """karolzak/keras-unet custom_unet: activation in the convolution, then norm; no bias."""

    def block(x, f):
        for last in (False, True):
            x = L.Conv2D(f, 3, activation="relu", padding="same", use_bias=not norm)(x)
            x = L.BatchNormalization()(x) if norm else x
            x = x if last else L.SpatialDropout2D(0.3)(x)
        return x

    def join(x, skip, f):
        if upsample == "deconv":
            up = L.Conv2DTranspose(f, (2, 2), strides=(2, 2), padding="same")(x)
        else:
            up = L.UpSampling2D((2, 2))(x)
        if attention:
            inter = up.shape[-1] // 2
            g = L.Activation("relu")(L.add([L.Conv2D(inter, 1)(skip), L.Conv2D(inter, 1)(up)]))
            skip = L.multiply([skip, L.Activation("sigmoid")(L.Conv2D(1, 1)(g))])
        return L.concatenate([up, skip])

    inputs = _image(side)
    x = _unet(inputs, [8 * 2**level for level in range(layers + 1)], block, join)
    return Model(inputs, L.Conv2D(1, (1, 1), activation="sigmoid")(x))


def nikhil_attention(side):
    """nikhilroxtomar attention U-Net: bilinear up-sampling, normalised gates."""

    def join(x, skip, f):
        x = L.UpSampling2D(interpolation="bilinear")(x)
        a = L.BatchNormalization()(L.Conv2D(f, 1, padding="same")(x))
        b = L.BatchNormalization()(L.Conv2D(f, 1, padding="same")(skip))
        out = L.Activation("relu")(L.Add()([a, b]))
        out = L.Activation("sigmoid")(L.Conv2D(f, 1, padding="same")(out))
        return L.Concatenate()([x, L.Multiply()([out, skip])])  # the gate has f channels

    inputs = _image(side, 3)
    x = _unet(inputs, (8, 16, 32, 64), _normalised, join)
    return Model(inputs, L.Conv2D(1, 1, padding="same", activation="sigmoid")(x))


def nikhil_resunet(side):
    """nikhilroxtomar ResUNet: norm before, strides instead of pooling, added shortcuts."""

    def pre(x):
        return L.Activation("relu")(L.BatchNormalization()(x))

    def residual(inputs, f, strides=1):
        x = L.Conv2D(f, 3, padding="same", strides=strides)(pre(inputs))
        x = L.Conv2D(f, 3, padding="same", strides=1)(pre(x))
        s = L.Conv2D(f, 1, padding="same", strides=strides)(inputs)
        return L.Add()([x, s])

    inputs = _image(side, 3)
    x = L.Conv2D(8, 3, padding="same")(inputs)
    x = L.Conv2D(8, 3, padding="same")(pre(x))
    x = L.Add()([x, L.Conv2D(8, 1, padding="same")(inputs)])
    skips = [x]
    for f in (16, 32):
        x = residual(x, f, 2)
        skips.append(x)
    x = residual(x, 64, 2)
    for f, skip in zip((32, 16, 8), skips[::-1], strict=True):
        x = L.Concatenate()([L.UpSampling2D((2, 2))(x), skip])
        x = residual(x, f)
    return Model(inputs, L.Conv2D(1, 1, padding="same", activation="sigmoid")(x))


def keras_io(side):
    """keras.io, "Image segmentation with a U-Net-like architecture"."""

    def twice(x, f, kind):
        for _ in range(2):
            x = L.BatchNormalization()(kind(f, 3, padding="same")(L.Activation("relu")(x)))
        return x

    inputs = _image(side, 3)
    x = L.BatchNormalization()(L.Conv2D(16, 3, strides=2, padding="same")(inputs))
    previous = x = L.Activation("relu")(x)
    for f in (32, 64, 128):
        x = L.MaxPooling2D(3, strides=2, padding="same")(twice(x, f, L.SeparableConv2D))
        residual = L.Conv2D(f, 1, strides=2, padding="same")(previous)
        previous = x = L.add([x, residual])
    for f in (128, 64, 32, 16):
        x = L.UpSampling2D(2)(twice(x, f, L.Conv2DTranspose))
        residual = L.Conv2D(f, 1, padding="same")(L.UpSampling2D(2)(previous))
        previous = x = L.add([x, residual])
    return Model(inputs, L.Conv2D(2, 3, activation="softmax", padding="same")(x))


def pyimagesearch(side):
    """PyImageSearch's U-Net: 3 channels, dropout after pooling, transposed 3 x 3, two classes."""

    def join(x, skip, f):
        x = L.Conv2DTranspose(f, 3, 2, padding="same")(x)
        return L.Dropout(0.3)(L.concatenate([x, skip]))

    inputs = _image(side, 3)
    pool = lambda x: L.Dropout(0.3)(L.MaxPool2D(2)(x))  # noqa: E731
    x = _unet(inputs, (8, 16, 32, 64, 128), _plain, join, pool)
    return Model(inputs, L.Conv2D(2, 1, padding="same", activation="softmax")(x))


def sreeni_attention(side, residual=False):
    """bnsreenu, attention (residual) U-Net: gating signals, gates at the lower resolution."""

    def block(x, f):
        if not residual:
            return _normalised(x, f)
        y = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(f, 3, padding="same")(x)))
        y = L.BatchNormalization()(L.Conv2D(f, 3, padding="same")(y))
        s = L.BatchNormalization()(L.Conv2D(f, 1, padding="same")(x))
        return L.Activation("relu")(L.add([s, y]))

    def join(x, skip, f):
        signal = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(f, 1, padding="same")(x)))
        theta = L.Conv2D(f, (2, 2), strides=(2, 2), padding="same")(skip)
        phi = L.Conv2D(f, (1, 1), padding="same")(signal)
        up = L.Conv2DTranspose(f, (3, 3), strides=(1, 1), padding="same")(phi)
        xg = L.Activation("relu")(L.add([up, theta]))
        psi = L.Activation("sigmoid")(L.Conv2D(1, (1, 1), padding="same")(xg))
        y = L.multiply([L.UpSampling2D(size=(2, 2))(psi), skip])
        y = L.BatchNormalization()(L.Conv2D(skip.shape[-1], (1, 1), padding="same")(y))
        return L.concatenate([L.UpSampling2D((2, 2), data_format="channels_last")(x), y], axis=3)

    inputs = _image(side)
    x = _unet(inputs, (8, 16, 32, 64), block, join)
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def strided_gates(side):
    """Attention U-Net of Kaggle notebooks: gates from the lower level, no gating convolution."""

    def join(x, skip, f):
        theta = L.Conv2D(f, 2, strides=2, padding="same")(skip)
        phi = L.Conv2D(f, 1, padding="same")(x)
        g = L.Activation("relu")(L.Add()([theta, phi]))
        psi = L.UpSampling2D(2)(L.Conv2D(1, 1, padding="same", activation="sigmoid")(g))
        attended = L.Multiply()([skip, psi])
        up = L.Conv2DTranspose(f, 2, strides=2, padding="same")(x)
        return L.Concatenate()([up, attended])

    inputs = _image(side)
    x = _unet(inputs, (8, 16, 32, 64), _plain, join)
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def general(
    side, widths=(8, 16, 32), count=2, up="transposed", merge="concat", act=None, norm=None,
    pool="max", conv="conv", kernel=3, up_block=False, before=False, shortcut=False, head=1,
    final="sigmoid", channels=1,
):  # fmt: skip
    """The same with one thing exchanged, as collections such as keras-unet-collection offer."""

    def activate(x):
        return act()(x) if act else L.Activation("relu")(x)

    def block(x, f, first=False):
        source = x
        for index in range(count):
            if before:
                x = activate(norm()(x))
            plain = conv == "conv" or (first and index == 0)
            kind = L.Conv2D if plain else L.SeparableConv2D
            x = kind(f, kernel, padding="same")(x)
            if not before:
                x = activate(norm()(x) if norm else x)
        if shortcut:
            x = L.add([x, L.Conv2D(f, 1, padding="same")(source)])
        return x

    def enlarge(x, f):
        if up == "transposed":
            x = L.Conv2DTranspose(f, 2, strides=2, padding="same")(x)
        elif up == "transposed3":
            x = L.Conv2DTranspose(f, 3, strides=2, padding="same")(x)
        else:
            x = L.UpSampling2D(2)(x)
            if up == "resize_conv":
                x = L.Conv2D(f, 3, padding="same")(x)
        return activate(norm()(x)) if up_block else x

    inputs, firsts = _image(side, channels), [True]

    def down(x):
        if pool == "conv":
            return activate(L.Conv2D(x.shape[-1], 3, strides=2, padding="same")(x))
        return (L.MaxPooling2D if pool == "max" else L.AveragePooling2D)(2)(x)

    def join(x, skip, f):
        up = enlarge(x, f)
        if merge == "add":
            return L.add([up, skip])
        return L.concatenate([up, skip] if merge == "concat" else [skip, up])

    x = _unet(inputs, widths, lambda x, f: block(x, f, bool(firsts) and firsts.pop()), join, down)
    return Model(inputs, L.Conv2D(head, 1, activation=final)(x))


LOADED = {
    "zhixuhao/unet": zhixuhao,
    "jocicmarko, ultrasound nerves": jocic,
    "Kaggle starter, ELU, Lambda scaling, 16-256": starter,
    "bnsreenu simple U-Net, ReLU": lambda s: starter(s, "relu", False, 1, (8, 16, 32, 64)),
    "bnsreenu U-Net with norm": lambda s: classic(s, bias=True),
    "nikhilroxtomar U-Net, 64-1024": lambda s: classic(s, (64, 128, 256, 512, 1024), 1),
    "nikhilroxtomar attention U-Net": nikhil_attention,
    "nikhilroxtomar ResUNet": nikhil_resunet,
    "keras-unet custom_unet, deconv": keras_unet,
    "keras-unet custom_unet, simple": lambda s: keras_unet(s, "simple", norm=False),
    "keras-unet custom_unet, attention": lambda s: keras_unet(s, attention=True, layers=2),
    "keras.io, U-Net-like": keras_io,
    "PyImageSearch U-Net, two classes": pyimagesearch,
    "bnsreenu attention U-Net": sreeni_attention,
    "bnsreenu attention residual U-Net": lambda s: sreeni_attention(s, residual=True),
    "attention from the lower level": strided_gates,
    "added skips": lambda s: general(s, merge="add"),
    "depth 6, one convolution": lambda s: classic(s, (8, 8, 16, 16, 32, 32, 64), 1),
    "depth 3, three convolutions, no bias": lambda s: classic(s, (8, 16, 32, 64), 3, bias=False),
    "separable after the first convolution": lambda s: general(
        s, conv="separable", norm=L.BatchNormalization
    ),
    "resize + 3 x 3 convolution with norm": lambda s: general(
        s, up="resize_conv", norm=L.BatchNormalization, up_block=True, merge="skip first"
    ),
    "transposed 3 x 3 with norm and activation": lambda s: general(
        s, up="transposed3", norm=L.BatchNormalization, up_block=True
    ),
    "pre-activation": lambda s: general(s, norm=L.BatchNormalization, before=True),
    "average pooling, LeakyReLU layers": lambda s: general(
        s, pool="average", act=lambda: L.LeakyReLU(negative_slope=0.1), merge="skip first"
    ),
    "convolutions with strides as pooling": lambda s: general(s, pool="conv", kernel=5),
    "residual without norm": lambda s: general(s, shortcut=True),
    "group normalisation, ReLU layers": lambda s: general(
        s, norm=lambda: L.GroupNormalization(4), act=L.ReLU
    ),
    "two sigmoid outputs, layer normalisation": lambda s: general(
        s, norm=L.LayerNormalization, head=2
    ),
}  # fmt: skip


def valid_padding(side):
    """Ronneberger et al.: valid convolutions, cropped skips."""
    x = inputs = _image(side)
    skip = x = L.Conv2D(8, 3, activation="relu")(x)
    x = L.Conv2D(16, 3, padding="same", activation="relu")(L.MaxPooling2D()(x))
    x = L.Conv2DTranspose(8, 2, strides=2)(x)
    x = L.concatenate([x, L.Cropping2D(1)(skip)][:1] + [skip])
    x = L.Cropping2D(1)(x)
    x = L.Conv2D(8, 3, activation="relu")(x)
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def conv(x, f, size=3):
    return L.Conv2D(f, size, padding="same", activation="relu")(x)


def up(x, f):
    return L.Conv2DTranspose(f, 2, strides=2)(x)


def ended(inputs, x):
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def nested_skips(side):
    """U-Net++: nodes between encoder and decoder."""
    inputs = _image(side)
    a = conv(inputs, 8)
    b = conv(L.MaxPooling2D()(a), 16)
    c = conv(L.MaxPooling2D()(b), 32)
    a1 = conv(L.concatenate([up(b, 8), a]), 8)
    b1 = conv(L.concatenate([up(c, 16), b]), 16)
    return ended(inputs, conv(L.concatenate([up(b1, 8), a, a1]), 8))


def squeeze(side):
    """Squeeze-and-excitation in the deepest block."""
    inputs = _image(side)
    a = conv(inputs, 8)
    x = conv(L.MaxPooling2D()(a), 16)
    s = L.Dense(16, activation="sigmoid")(L.Dense(4)(L.GlobalAveragePooling2D()(x)))
    x = L.multiply([x, L.Reshape((1, 1, 16))(s)])
    return ended(inputs, conv(L.concatenate([up(x, 8), a]), 8))


def deep_supervision(side):
    """A second output from the lower decoder level."""
    base = general(side)
    side_output = L.Conv2D(1, 1, activation="sigmoid")(base.layers[-10].output)
    return Model(base.input, [base.output, side_output])


def nested_model(side):
    """An encoder that is a model of its own."""
    inputs, image = _image(side), _image(side)
    return ended(image, Model(inputs, conv(inputs, 8))(image))


def mixed_kernels(side):
    """A block of a 3 x 3 and a 5 x 5 convolution side by side (Inception)."""

    def block(x, f):
        return L.concatenate([conv(x, f), conv(x, f, 5)])

    inputs = _image(side)
    a = block(inputs, 8)
    x = L.concatenate([up(block(L.MaxPooling2D()(a), 16), 8), a])
    return ended(inputs, block(x, 8))


def instance_norm_prelu(side):
    """PReLU activations with weights for each channel."""
    return general(side, act=lambda: L.PReLU(shared_axes=[1, 2]))


REFUSED = {
    "valid padding, cropped skips": (valid_padding, "cropping2d"),
    "U-Net++": (nested_skips, "conv2d|concatenate"),
    "squeeze and excitation": (squeeze, "dense"),
    "two outputs (deep supervision)": (deep_supervision, "activation"),
    "a model within the model": (nested_model, "a model or layer within a layer"),
    "Inception blocks": (mixed_kernels, "conv2d|concatenate"),
    "PReLU": (instance_norm_prelu, "p_re_lu"),
}
