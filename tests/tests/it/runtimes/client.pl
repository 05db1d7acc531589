# One call to an API: all that a bot would write.
use LWP::UserAgent;
my $answer = LWP::UserAgent->new->get($ARGV[0]);
die $answer->status_line if ($answer->header("Client-Warning") // "") eq "Internal response";
