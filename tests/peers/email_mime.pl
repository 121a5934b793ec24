# Reads messages (the files that are its arguments) with Email::MIME, and writes what it found in them as JSON.
use strict;
use warnings;
use Email::Address::XS;
use Email::MIME;
use Encode qw(decode);
use JSON::PP;
use MIME::Base64;

sub text {
    my ($value) = @_;
    return defined $value ? "$value" : "";
}

sub words {    # encoded ones decoded; Email::MIME knows nothing of UTF-8 in fields (RFC 6532)
    my ($value) = @_;
    return decode($value =~ /[^\x00-\x7f]/ ? 'UTF-8' : 'MIME-Header', $value);
}

sub field {
    my ($message, $name) = @_;
    my $raw = text(scalar $message->header_raw($name));
    return $raw =~ /[^\x00-\x7f]/ ? words($raw) : text(scalar $message->header_str($name));
}

sub addresses {
    my ($message, $name) = @_;
    my $raw = $message->header_raw($name);
    return [] unless defined $raw;
    return [
        map { [ words(text($_->phrase)), decode('UTF-8', $_->address) ] }
            Email::Address::XS->parse($raw)
    ];
}

sub part {
    my ($part) = @_;
    my ($type) = split /;/, $part->content_type // 'text/plain';
    my ($disposition) = split /;/, $part->header('Content-Disposition') // '';
    my @members = $type =~ m{^multipart/} ? $part->subparts : ();
    return {
        type        => lc $type,
        disposition => $disposition // "",
        name        => text($part->filename),
        id          => text(scalar $part->header('Content-ID')),
        data        => @members ? "" : encode_base64($part->body, ""),
        parts       => [ map { part($_) } @members ],
    };
}

my @found;
for my $path (@ARGV) {
    open my $file, '<:raw', $path or die "$path: $!";
    local $/;
    my $message = Email::MIME->new(<$file>);
    push @found, {
        subject => field($message, 'Subject'),
        id      => field($message, 'Message-ID'),
        refs    => field($message, 'References'),
        extra   => field($message, 'X-Note'),
        (map { lc($_) => addresses($message, $_) } qw(From To Cc Reply-To)),
        body => part($message),
    };
}
print JSON::PP->new->ascii->encode(\@found);
