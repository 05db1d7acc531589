# One call to an API: all that a bot would write.
require "net/http"
Net::HTTP.get_response(URI(ARGV[0]))
