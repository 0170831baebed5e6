"""U-Nets as popular Keras tutorials and libraries build them; nothing here is of the library.

Each function returns a fresh `keras.Model`. Layers are written as those sources write them, widths
made smaller where only the widths would change.
"""

from keras import Input, Model
from keras import layers as L


def _image(side, channels=1):
    return Input((side, side, channels))


def zhixuhao(side):
    """zhixuhao/unet: ReLU arguments, dropout, resize + 2 x 2 convolution, [skip, up], tail."""
    x = inputs = _image(side)
    skips = []
    for level, f in enumerate((8, 16, 32, 64)):
        x = L.Conv2D(f, 3, activation="relu", padding="same")(x)
        x = L.Conv2D(f, 3, activation="relu", padding="same")(x)
        if level == 3:
            x = L.Dropout(0.5)(x)
        skips.append(x)
        x = L.MaxPooling2D(pool_size=(2, 2))(x)
    x = L.Conv2D(128, 3, activation="relu", padding="same")(x)
    x = L.Conv2D(128, 3, activation="relu", padding="same")(x)
    x = L.Dropout(0.5)(x)
    for f, skip in zip((64, 32, 16, 8), skips[::-1], strict=True):
        up = L.Conv2D(f, 2, activation="relu", padding="same")(L.UpSampling2D(size=(2, 2))(x))
        x = L.concatenate([skip, up], axis=3)
        x = L.Conv2D(f, 3, activation="relu", padding="same")(x)
        x = L.Conv2D(f, 3, activation="relu", padding="same")(x)
    x = L.Conv2D(2, 3, activation="relu", padding="same")(x)
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def jocic(side):
    """jocicmarko/ultrasound-nerve-segmentation: transposed 2 x 2, [up, skip], depth 4."""
    x = inputs = _image(side)
    skips = []
    for f in (8, 16, 32, 64):
        x = L.Conv2D(f, (3, 3), activation="relu", padding="same")(x)
        x = L.Conv2D(f, (3, 3), activation="relu", padding="same")(x)
        skips.append(x)
        x = L.MaxPooling2D(pool_size=(2, 2))(x)
    x = L.Conv2D(128, (3, 3), activation="relu", padding="same")(x)
    x = L.Conv2D(128, (3, 3), activation="relu", padding="same")(x)
    for f, skip in zip((64, 32, 16, 8), skips[::-1], strict=True):
        x = L.concatenate(
            [L.Conv2DTranspose(f, (2, 2), strides=(2, 2), padding="same")(x), skip], axis=3
        )
        x = L.Conv2D(f, (3, 3), activation="relu", padding="same")(x)
        x = L.Conv2D(f, (3, 3), activation="relu", padding="same")(x)
    return Model(inputs, L.Conv2D(1, (1, 1), activation="sigmoid")(x))


def starter(side, activation="elu", scaling=True, channels=3, widths=(16, 32, 64, 128, 256)):
    """Kaggle's "Keras U-Net starter": bytes through a Lambda, ELU, dropout between convolutions."""
    inputs = _image(side, channels)
    x = L.Lambda(lambda x: x / 255)(inputs) if scaling else inputs
    skips = []
    for level, f in enumerate(widths):
        x = L.Conv2D(f, 3, activation=activation, padding="same")(x)
        x = L.Dropout(0.1)(x)
        x = L.Conv2D(f, 3, activation=activation, padding="same")(x)
        if level < len(widths) - 1:
            skips.append(x)
            x = L.MaxPooling2D((2, 2))(x)
    for f, skip in zip(widths[-2::-1], skips[::-1], strict=True):
        x = L.Conv2DTranspose(f, (2, 2), strides=(2, 2), padding="same")(x)
        x = L.concatenate([x, skip])
        x = L.Conv2D(f, 3, activation=activation, padding="same")(x)
        x = L.Dropout(0.2)(x)
        x = L.Conv2D(f, 3, activation=activation, padding="same")(x)
    return Model(inputs, L.Conv2D(1, (1, 1), activation="sigmoid")(x))


def _conv_bn_relu(x, f, count=2, bias=True):
    for _ in range(count):
        x = L.Conv2D(f, 3, padding="same", use_bias=bias)(x)
        x = L.BatchNormalization()(x)
        x = L.Activation("relu")(x)
    return x


def classic(side, widths=(8, 16, 32, 64), count=2, bias=True, head=1, final="sigmoid", channels=1):
    """bnsreenu, nikhilroxtomar: convolution, norm, activation; transposed; [up, skip]."""
    x = inputs = _image(side, channels)
    skips = []
    for f in widths[:-1]:
        x = _conv_bn_relu(x, f, count, bias)
        skips.append(x)
        x = L.MaxPool2D((2, 2))(x)
    x = _conv_bn_relu(x, widths[-1], count, bias)
    for f, skip in zip(widths[-2::-1], skips[::-1], strict=True):
        x = L.Conv2DTranspose(f, (2, 2), strides=2, padding="same")(x)
        x = L.Concatenate()([x, skip])
        x = _conv_bn_relu(x, f, count, bias)
    return Model(inputs, L.Conv2D(head, 1, padding="same", activation=final)(x))


def keras_unet(side, upsample="deconv", norm=True, attention=False, f=8, layers=3):
    """karolzak/keras-unet custom_unet: activation in the convolution, then norm; no bias."""

    def block(x, f, dropout):
        x = L.Conv2D(f, 3, activation="relu", padding="same", use_bias=not norm)(x)
        if norm:
            x = L.BatchNormalization()(x)
        x = L.SpatialDropout2D(dropout)(x)
        x = L.Conv2D(f, 3, activation="relu", padding="same", use_bias=not norm)(x)
        return L.BatchNormalization()(x) if norm else x

    def gate(skip, up):
        inter = up.shape[-1] // 2
        a = L.Conv2D(inter, 1)(skip)
        b = L.Conv2D(inter, 1)(up)
        g = L.Activation("relu")(L.add([a, b]))
        h = L.Activation("sigmoid")(L.Conv2D(1, 1)(g))
        return L.multiply([skip, h])

    x = inputs = _image(side)
    skips = []
    for level in range(layers):
        x = block(x, f * 2**level, 0.3)
        skips.append(x)
        x = L.MaxPooling2D((2, 2))(x)
    x = block(x, f * 2**layers, 0.3)
    for level, skip in reversed(list(enumerate(skips))):
        if upsample == "deconv":
            x = L.Conv2DTranspose(f * 2**level, (2, 2), strides=(2, 2), padding="same")(x)
        else:
            x = L.UpSampling2D((2, 2))(x)
        x = L.concatenate([x, gate(skip, x) if attention else skip])
        x = block(x, f * 2**level, 0.0)
    return Model(inputs, L.Conv2D(1, (1, 1), activation="sigmoid")(x))


def nikhil_attention(side):
    """nikhilroxtomar attention U-Net: bilinear up-sampling, normalised gates."""

    def gate(g, s, f):
        a = L.BatchNormalization()(L.Conv2D(f, 1, padding="same")(g))
        b = L.BatchNormalization()(L.Conv2D(f, 1, padding="same")(s))
        out = L.Activation("relu")(L.Add()([a, b]))
        out = L.Activation("sigmoid")(L.Conv2D(f, 1, padding="same")(out))
        return L.Multiply()([out, s])

    x = inputs = _image(side, 3)
    skips = []
    for f in (8, 16, 32):
        x = _conv_bn_relu(x, f)
        skips.append(x)
        x = L.MaxPool2D((2, 2))(x)
    x = _conv_bn_relu(x, 64)
    for f, skip in zip((32, 16, 8), skips[::-1], strict=True):
        x = L.UpSampling2D(interpolation="bilinear")(x)
        # the gate's output has the skip's channels
        x = L.Concatenate()([x, gate(x, skip, f)])
        x = _conv_bn_relu(x, f)
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
    inputs = _image(side, 3)
    x = L.Conv2D(16, 3, strides=2, padding="same")(inputs)
    x = L.BatchNormalization()(x)
    x = L.Activation("relu")(x)
    previous = x
    for f in (32, 64, 128):
        x = L.Activation("relu")(x)
        x = L.SeparableConv2D(f, 3, padding="same")(x)
        x = L.BatchNormalization()(x)
        x = L.Activation("relu")(x)
        x = L.SeparableConv2D(f, 3, padding="same")(x)
        x = L.BatchNormalization()(x)
        x = L.MaxPooling2D(3, strides=2, padding="same")(x)
        residual = L.Conv2D(f, 1, strides=2, padding="same")(previous)
        x = L.add([x, residual])
        previous = x
    for f in (128, 64, 32, 16):
        x = L.Activation("relu")(x)
        x = L.Conv2DTranspose(f, 3, padding="same")(x)
        x = L.BatchNormalization()(x)
        x = L.Activation("relu")(x)
        x = L.Conv2DTranspose(f, 3, padding="same")(x)
        x = L.BatchNormalization()(x)
        x = L.UpSampling2D(2)(x)
        residual = L.UpSampling2D(2)(previous)
        residual = L.Conv2D(f, 1, padding="same")(residual)
        x = L.add([x, residual])
        previous = x
    return Model(inputs, L.Conv2D(2, 3, activation="softmax", padding="same")(x))


def pyimagesearch(side):
    """PyImageSearch's U-Net: 3 channels, dropout after pooling, transposed 3 x 3, two classes."""
    x = inputs = _image(side, 3)
    skips = []

    def double(x, f):
        x = L.Conv2D(f, 3, padding="same", activation="relu")(x)
        return L.Conv2D(f, 3, padding="same", activation="relu")(x)

    for f in (8, 16, 32, 64):
        x = double(x, f)
        skips.append(x)
        x = L.Dropout(0.3)(L.MaxPool2D(2)(x))
    x = double(x, 128)
    for f, skip in zip((64, 32, 16, 8), skips[::-1], strict=True):
        x = L.Conv2DTranspose(f, 3, 2, padding="same")(x)
        x = L.Dropout(0.3)(L.concatenate([x, skip]))
        x = double(x, f)
    return Model(inputs, L.Conv2D(2, 1, padding="same", activation="softmax")(x))


def sreeni_attention(side, residual=False):
    """bnsreenu, attention (residual) U-Net: gating signals, gates at the lower resolution."""

    def block(x, f):
        if not residual:
            return _conv_bn_relu(x, f)
        y = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(f, 3, padding="same")(x)))
        y = L.BatchNormalization()(L.Conv2D(f, 3, padding="same")(y))
        s = L.BatchNormalization()(L.Conv2D(f, 1, padding="same")(x))
        return L.Activation("relu")(L.add([s, y]))

    def gate(x, gating, inter):
        theta = L.Conv2D(inter, (2, 2), strides=(2, 2), padding="same")(x)
        phi = L.Conv2D(inter, (1, 1), padding="same")(gating)
        up = L.Conv2DTranspose(inter, (3, 3), strides=(1, 1), padding="same")(phi)
        xg = L.Activation("relu")(L.add([up, theta]))
        psi = L.Activation("sigmoid")(L.Conv2D(1, (1, 1), padding="same")(xg))
        y = L.multiply([L.UpSampling2D(size=(2, 2))(psi), x])
        return L.BatchNormalization()(L.Conv2D(x.shape[-1], (1, 1), padding="same")(y))

    x = inputs = _image(side)
    skips = []
    for f in (8, 16, 32):
        x = block(x, f)
        skips.append(x)
        x = L.MaxPooling2D(pool_size=(2, 2))(x)
    x = block(x, 64)
    for f, skip in zip((32, 16, 8), skips[::-1], strict=True):
        signal = L.Activation("relu")(L.BatchNormalization()(L.Conv2D(f, 1, padding="same")(x)))
        attention = gate(skip, signal, f)
        up = L.UpSampling2D((2, 2), data_format="channels_last")(x)
        x = block(L.concatenate([up, attention], axis=3), f)
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def strided_gates(side):
    """Attention U-Net of Kaggle notebooks: gates from the lower level, no gating convolution."""
    x = inputs = _image(side)
    skips = []
    for f in (8, 16, 32):
        x = L.Conv2D(f, 3, padding="same", activation="relu")(x)
        x = L.Conv2D(f, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = L.MaxPooling2D()(x)
    x = L.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = L.Conv2D(64, 3, padding="same", activation="relu")(x)
    for f, skip in zip((32, 16, 8), skips[::-1], strict=True):
        theta = L.Conv2D(f, 2, strides=2, padding="same")(skip)
        phi = L.Conv2D(f, 1, padding="same")(x)
        g = L.Activation("relu")(L.Add()([theta, phi]))
        psi = L.UpSampling2D(2)(L.Conv2D(1, 1, padding="same", activation="sigmoid")(g))
        attended = L.Multiply()([skip, psi])
        x = L.Conv2DTranspose(f, 2, strides=2, padding="same")(x)
        x = L.Concatenate()([x, attended])
        x = L.Conv2D(f, 3, padding="same", activation="relu")(x)
        x = L.Conv2D(f, 3, padding="same", activation="relu")(x)
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

    x = inputs = _image(side, channels)
    skips = []
    for level, f in enumerate(widths[:-1]):
        x = block(x, f, first=level == 0)
        skips.append(x)
        if pool == "conv":
            x = activate(L.Conv2D(f, 3, strides=2, padding="same")(x))
        else:
            x = (L.MaxPooling2D if pool == "max" else L.AveragePooling2D)(2)(x)
    x = block(x, widths[-1])
    for f, skip in zip(widths[-2::-1], skips[::-1], strict=True):
        x = enlarge(x, f)
        x = (
            L.add([x, skip])
            if merge == "add"
            else L.concatenate([x, skip] if merge == "concat" else [skip, x])
        )
        x = block(x, f)
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


def nested_skips(side):
    """U-Net++: nodes between encoder and decoder."""
    inputs = _image(side)

    def conv(x, f):
        return L.Conv2D(f, 3, padding="same", activation="relu")(x)

    def up(x, f):
        return L.Conv2DTranspose(f, 2, strides=2)(x)

    a = conv(inputs, 8)
    b = conv(L.MaxPooling2D()(a), 16)
    c = conv(L.MaxPooling2D()(b), 32)
    a1 = conv(L.concatenate([up(b, 8), a]), 8)
    b1 = conv(L.concatenate([up(c, 16), b]), 16)
    a2 = conv(L.concatenate([up(b1, 8), a, a1]), 8)
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(a2))


def squeeze(side):
    """Squeeze-and-excitation in the deepest block."""
    inputs = _image(side)
    a = L.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = L.Conv2D(16, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    s = L.Dense(16, activation="sigmoid")(L.Dense(4)(L.GlobalAveragePooling2D()(x)))
    x = L.multiply([x, L.Reshape((1, 1, 16))(s)])
    x = L.concatenate([L.Conv2DTranspose(8, 2, strides=2)(x), a])
    x = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def deep_supervision(side):
    """A second output from the lower decoder level."""
    base = general(side)
    side_output = L.Conv2D(1, 1, activation="sigmoid")(base.layers[-10].output)
    return Model(base.input, [base.output, side_output])


def nested_model(side):
    """An encoder that is a model of its own."""
    inputs = _image(side)
    a = L.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    encoder = Model(inputs, a)
    image = _image(side)
    return Model(image, L.Conv2D(1, 1, activation="sigmoid")(encoder(image)))


def mixed_kernels(side):
    """A block of a 3 x 3 and a 5 x 5 convolution side by side (Inception)."""
    inputs = _image(side)

    def block(x, f):
        a = L.Conv2D(f, 3, padding="same", activation="relu")(x)
        return L.concatenate([a, L.Conv2D(f, 5, padding="same", activation="relu")(x)])

    a = block(inputs, 8)
    x = block(L.MaxPooling2D()(a), 16)
    x = L.concatenate([L.Conv2DTranspose(8, 2, strides=2)(x), a])
    return Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(block(x, 8)))


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
