"""The optional compiled part. Where it cannot be built, fednb installs and works the same, slower."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "fednb.crypto._lanes",
            sources=["native/module.c", "native/squares.c", "native/curve25519.c"],
            depends=["native/lanes.h"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ]
)
