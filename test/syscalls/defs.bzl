"""Syscall tests: one static binary, run natively and then inside a sandbox on each platform."""

load("//:copts.bzl", "redoubt_binary")
load("//test:platforms.bzl", "PLATFORMS")

def syscall_test(name, srcs, deps = [], copts = [], timeout = "short", tags = [], host_network = False):
    """Makes <name>_native and one <name>_<platform> for each platform, all running one binary.

    Args:
      name: of the family, <family>_test by habit.
      srcs: the tests.
      deps: besides the utilities and GoogleTest.
      copts: added to the house's.
      timeout: of each of the tests.
      tags: added to "syscalls" and "platform_<platform>".
      host_network: makes <name>_<platform>_host as well, with --network=host.
    """
    redoubt_binary(
        name = name,
        testonly = True,
        srcs = srcs,
        copts = copts,
        deps = deps + [
            "//test/syscalls/util",
            "//test/syscalls/util:main",
            "@debian//:gtest",
        ],
    )
    variants = ["native"] + PLATFORMS
    if host_network:
        variants = variants + [platform + "_host" for platform in PLATFORMS]
    for platform in variants:
        sandboxed = platform != "native"
        native.sh_test(
            name = name + "_" + platform,
            srcs = ["//test/syscalls:run_syscall_test.sh"],
            args = [
                platform,
                "$(rootpath :%s)" % name,
                "$(rootpath //test/syscalls:expectations.txt)",
            ] + (["$(rootpath //runsc)"] if sandboxed else []),
            data = [
                ":" + name,
                "//test/syscalls:expectations.txt",
            ] + (["//runsc"] if sandboxed else []),
            timeout = timeout,
            tags = ["local", "syscalls", "platform_" + platform.replace("_host", "")] + tags,
        )
