# Verifies the DKIM signatures of a message on standard input with perl's Mail::DKIM; prints a line for each.
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::Resolver;

my ($port) = @ARGV;
Mail::DKIM::DNS::resolver(
    Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 1));
my $verifier = Mail::DKIM::Verifier->new();
binmode STDIN;
{ local $/; $verifier->PRINT(scalar <STDIN>); }
$verifier->CLOSE;
for my $signature ($verifier->signatures) {
    printf "%s %s %s %s\n", $signature->selector, $signature->algorithm, $signature->domain,
        $signature->result_detail;
}
