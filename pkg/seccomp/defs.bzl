"""Filters as headers."""

def seccomp_filter(name, lists, variable, visibility = None):
    """A header NAME.h with the BPF program VARIABLEProgram that allows what `lists` say, and the lists as VARIABLERules."""
    native.genrule(
        name = name,
        srcs = lists,
        outs = [name + ".h"],
        cmd = "$(execpath //pkg/seccomp:write_filter) %s $(SRCS) > $@" % variable,
        tools = ["//pkg/seccomp:write_filter"],
        visibility = visibility,
    )
