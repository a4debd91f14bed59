# Children by fork, with pipes to each, and what they say and end with.
# One line in "progress" per round; ends when there is a file "finish", with status 0 if everything was right.
use strict;
use warnings;
use IO::Handle;

my ($rounds, $ended) = (0, 0);
open(my $progress, '>', 'progress') or die "progress: $!";
$progress->autoflush(1);
while ($rounds < 3 || !-e 'finish') {
    $rounds++;
    my %from;
    for my $n (1 .. 4) {
        pipe(my $read, my $write) or die "pipe: $!";
        my $pid = fork() // die "fork: $!";
        if (!$pid) {
            close $read;
            my $sum = 0;
            for my $i (1 .. 20) {
                select(undef, undef, undef, 0.01);
                $sum += $i * $n;
                syswrite($write, "$sum\n") or die "write: $!";
            }
            exit $n;
        }
        close $write;
        $from{$pid} = [$n, $read];
    }
    for my $pid (sort keys %from) {
        my ($n, $read) = @{ $from{$pid} };
        my @said = <$read>;
        @said == 20 && $said[-1] == 210 * $n or die "child $n says @said";
        waitpid($pid, 0) == $pid && $? == $n << 8 or die "child $n ended with $?";
    }
    `echo $rounds` == $rounds or die 'echo';
    print $progress "$rounds\n";
}
