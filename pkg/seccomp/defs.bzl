"""Filters as headers."""

def seccomp_filter(name, names, variable, visibility = None):
    """A header NAME.h with the BPF program VARIABLE that allows the calls listed in the file NAMES."""
    native.genrule(
        name = name,
        srcs = [names],
        outs = [name + ".h"],
        cmd = "$(execpath //pkg/seccomp:write_filter) $(location %s) %s > $@" % (names, variable),
        tools = ["//pkg/seccomp:write_filter"],
        visibility = visibility,
    )
