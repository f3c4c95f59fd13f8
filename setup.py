"""The optional compiled part. Where it cannot be built, fednb installs and works the same, slower."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "fednb.crypto._lanes",
            sources=[f"native/{name}.c" for name in ("module", "squares_ifma", "squares_avx2", "curve25519")],
            depends=["native/lanes.h", "native/squares.h"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ]
)
