"""What pyproject.toml cannot say: data and weights go into the wheel, as unet_lib/shipped."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["unet_lib", "unet_lib.*"]),
        "unet_lib.shipped.data",
        "unet_lib.shipped.weights",
    ],
    package_dir={"unet_lib.shipped.data": "data", "unet_lib.shipped.weights": "weights"},
    package_data={
        "": ["py.typed", "templates/*"],
        "unet_lib.shipped.data": ["busi_audit.csv", "splits/*.csv"],
        "unet_lib.shipped.weights": ["elsewhere.json", "bus-small/*", "encoders/*"],
    },
    include_package_data=False,
)
