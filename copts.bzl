"""The one place where compiler flags are kept; every package uses these macros and no bare cc_ rule."""

COPTS = [
    "-Wall",
    "-Wextra",
    "-Werror",
    # Interfaces name parameters that a given implementation has no use for, and designated initializers leave
    # members to their defaults; neither hides a bug.
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
    # Guest bytes are read as structs.
    "-fno-strict-aliasing",
]

def redoubt_library(name, copts = [], **kwargs):
    native.cc_library(
        name = name,
        copts = COPTS + copts,
        linkstatic = True,
        **kwargs
    )

def redoubt_binary(name, copts = [], linkopts = [], static = True, **kwargs):
    """A program; fully static unless said otherwise, since a static program starts in under a millisecond."""
    native.cc_binary(
        name = name,
        copts = COPTS + copts,
        linkopts = linkopts + (["-static"] if static else []),
        linkstatic = True,
        **kwargs
    )

def redoubt_test(name, copts = [], deps = [], size = "small", **kwargs):
    native.cc_test(
        name = name,
        copts = COPTS + copts,
        linkstatic = True,
        size = size,
        deps = deps + ["@debian//:gtest_main"],
        **kwargs
    )
