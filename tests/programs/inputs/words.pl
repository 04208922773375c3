# Hashes, sorting, regular expressions, and children by fork.
use strict;
use warnings;

my $state = 1;

sub number {
    my ($bound) = @_;
    $state = ($state * 1103515245 + 12345) % 2147483648;
    return int($state / 65536) % $bound;
}

my (%count, %by_length);
my $text = '';
for my $step (1 .. 50_000) {
    my $word = join '', map { chr(97 + number(26)) } 1 .. 1 + number(6);
    $count{$word}++;
    $text .= $word . ($step % 12 ? ' ' : "\n");
}
push @{ $by_length{ length $_ } }, $_ for sort keys %count;
for my $length (sort { $a <=> $b } keys %by_length) {
    my @words = sort { $count{$b} <=> $count{$a} || $a cmp $b } @{ $by_length{$length} };
    printf "%d: %d, %s\n", $length, scalar @words, join ' ', @words[0 .. ($#words < 20 ? $#words : 20)];
}
(my $changed = $text) =~ s/(\w)(\w+)/$2$1/g;
my %pairs;
$pairs{"$1$2"}++ while $changed =~ /\b(\w)\w*(\w)\b/g;
print "$_ $pairs{$_}\n" for sort keys %pairs;
my @lines = sort split /\n/, $changed;
print scalar(@lines), ' ', $lines[0], "\n";
my $long = '';
$long .= 'x' x $_ for 1 .. 3000;
print length($long), "\n";

for my $child (1 .. 40) {
    pipe(my $reader, my $writer) or die;
    my $pid = fork // die;
    if ($pid == 0) {
        close $reader;
        my %own = map { $_ => [ ($_) x 5 ] } 1 .. 500 * ($child % 4);
        delete $own{$_} for grep { $_ % 2 } keys %own;
        print $writer "$child: ", scalar(keys %own), "\n";
        close $writer;
        exit $child % 7;
    }
    close $writer;
    print <$reader>;
    waitpid $pid, 0;
    print $? >> 8, "\n";
}
print `echo from a shell`;
