. "$(dirname "$0")/lib.sh"
cat >"$SCRATCH/t.pl" <<'SCRIPT'
use strict; use warnings; use POSIX; use File::Temp; use IO::Select;
my %h; $h{$_ % 7}++ for 1..1000; print join(",", map { "$_=$h{$_}" } sort keys %h), "\n";
my $pid = fork(); if (!$pid) { exit 5 } waitpid($pid, 0); print "child ", $? >> 8, "\n";
open(my $p, "-|", "echo from a pipe") or die; print <$p>; close $p;
$SIG{ALRM} = sub { print "alarm\n" }; alarm 1; select(undef, undef, undef, 3);
my ($fh, $name) = File::Temp::tempfile(); print $fh "abc\n" x 1000; close $fh; print -s $name, "\n"; unlink $name;
print strftime("%Y", gmtime(0)), "\n"; print `printf backticks`, "\n";
opendir(my $d, "/etc") or die; print scalar(grep { /^passwd$/ } readdir $d), "\n";
SCRIPT
same_as_native "perl" perl "$SCRATCH/t.pl"
finish
