"""What is tested on each platform."""

PLATFORMS = ["systrap", "ptrace", "kvm"]

def platform_sh_test(name, data = [], env = {}, size = "medium"):
    """Makes <name>_<platform>_test for each platform, all running <name>_test.sh with RUNSC and RUNSC_PLATFORM.

    Args:
      name: of the script, without _test.sh.
      data: besides runsc.
      env: besides those two.
      size: of each.
    """
    for platform in PLATFORMS:
        native.sh_test(
            name = name + "_" + platform + "_test",
            size = size,
            srcs = [name + "_test.sh"],
            data = data + ["//runsc"],
            env = dict(
                env,
                RUNSC = "$(rootpath //runsc)",
                RUNSC_PLATFORM = platform,
            ),
            tags = ["local", "platform_" + platform],
        )
