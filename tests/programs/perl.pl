# A sieve, a sort, hashes, a file that is read and written, a timer by signal: all of it goes on in what a restart brings
# back. One line in "progress" per round; ends when there is a file "finish", with status 0 if everything was right.
use strict;
use warnings;
use Time::HiRes qw(setitimer ITIMER_REAL);
use IO::Handle;

my $ticks = 0;
$SIG{ALRM} = sub { $ticks++ };
setitimer(ITIMER_REAL, 0.01, 0.01);

sub primes {
	my ($n) = @_;
	my @composite;
	my @found;
	for my $i (2 .. $n) {
		next if $composite[$i];
		push @found, $i;
		for (my $j = $i * $i; $j <= $n; $j += $i) { $composite[$j] = 1 }
	}
	return @found;
}

open(my $progress, '>', 'progress') or die "progress: $!";
$progress->autoflush(1);
open(my $words, '+>', 'words') or die "words: $!";
my (%seen, $rounds, $sum);
while (!defined $rounds || $rounds < 4 || !-e 'finish') {
	$rounds++;
	my @p = primes(20000 + $rounds);
	$sum += scalar(@p);
	my @shuffled = sort { ($a * 7919) % 10007 <=> ($b * 7919) % 10007 } @p;
	my @sorted = sort { $a <=> $b } @shuffled;
	die "sorted wrong in round $rounds" if "@sorted" ne "@p";
	$seen{"round $rounds"} = $p[-1];
	printf $words "%08d\n", $p[-1];
	my $before = $ticks;
	select(undef, undef, undef, 0.02) while $ticks == $before;
	print $progress "$rounds\n";
}
setitimer(ITIMER_REAL, 0);
seek($words, 0, 0) or die "seek: $!";
my ($n, $again) = (0, 0);
while (my $line = <$words>) {
	$n++;
	$again += primes(20000 + $n);
	die "line $n of words is $line" unless $line == $seen{"round $n"};
}
die "$n lines of $rounds, $again primes of $sum" unless $n == $rounds && $again == $sum;
print "rounds: $rounds\n";
